"""The oracle itself: what it accepts, and what it does not."""

import collections
import unittest

from load import Request
from oracle import Journals, judge


def journals(*steps):
    """Journals with these steps, as `received ID` and `executed ID`."""
    found = Journals([])
    for step in steps:
        what, name = step.split()
        getattr(found, what)[name] += 1
    return found


def request(kind, outcome, heard=False, reused=False):
    """A request for the first second of the world."""
    return Request("a", kind, "proxy-a", "soak.test", reused, 10.0, 11.0, outcome, heard)


KILLED = ("member-1-agent", "killed", 10.5, 10.5)
ALSO_KILLED = ("member-2-application", "killed", 10.7, 10.7)
TERMINATED = ("member-1-application", "terminated", 10.2, 10.5)
LOST = "lost: ConnectionResetError"


class Oracle(unittest.TestCase):
    """One request at a time."""

    def assert_found(self, one, log, steps, **expected):
        """Judges one request; `expected` are the counts that are not 0."""
        findings = judge([one], log, journals(*steps), heals=True)
        counted = {name: getattr(findings, name) for name in ("redialled", "refused", "unserved", "lost_with_proxy", "lost_gets", "lost_posts", "doubled", "mixed", "unexplained")}
        self.assertEqual(collections.Counter(counted), collections.Counter(expected))
        wrong = sum(expected.get(name, 0) for name in ("doubled", "mixed", "unexplained"))
        self.assertEqual(len(findings.wrong), wrong, findings.wrong)

    def test_a_post_is_executed_once_and_answered(self):
        self.assert_found(request("post", "answered"), [], ["received a", "executed a"])

    def test_a_post_that_was_executed_twice_is_doubled(self):
        steps = ["received a", "executed a"] * 2
        self.assert_found(request("post", "aborted"), [], steps, doubled=1)

    def test_a_post_that_two_applications_received_is_doubled(self):
        self.assert_found(request("post", "aborted"), [], ["received a"] * 2, doubled=1)

    def test_a_post_that_was_answered_was_executed(self):
        self.assert_found(request("post", "answered"), [], ["received a"], unexplained=1)

    def test_a_proxy_without_a_place_refuses_what_nobody_has_received(self):
        crowded, told = ("proxy-a", "crowded", 10.2, 10.9), "answered 503 too many connections are open"
        self.assert_found(request("get", told, heard=True), [crowded], [], refused=1)
        self.assert_found(request("get", told, heard=True), [], [], unexplained=1)
        self.assert_found(request("get", told, heard=True), [crowded], ["received a"], unexplained=1)
        self.assert_found(request("get", "answered 502", heard=True), [crowded], [], unexplained=1)

    def test_an_ending_proxy_refuses_what_is_for_a_program_that_is_away(self):
        away, ending = ("member-1-agent", "away", 9.0, 10.9), ("proxy-a", "terminated", 10.5, 10.9)
        told = "answered 503 the proxy is shutting down"
        self.assert_found(request("post", told, heard=True), [away, ending], [], unserved=1)
        self.assert_found(request("get", told, heard=True), [ending], [], unexplained=1)
        self.assert_found(request("get", told, heard=True), [away], [], unexplained=1)
        self.assert_found(request("get", told, heard=True), [away, ending], ["received a"], unexplained=1)

    def test_another_requests_answer_is_mixed(self):
        self.assert_found(request("get", "WRONG: the head of b", heard=True), [], [], mixed=1)

    def test_a_failure_without_a_fault_is_unexplained(self):
        self.assert_found(request("get", "answered 502", heard=True), [], ["received a"], unexplained=1)

    def test_a_restart_in_good_order_explains_no_failure(self):
        self.assert_found(request("get", LOST), [TERMINATED], ["received a"], unexplained=1)

    def test_one_kill_costs_no_get(self):
        self.assert_found(request("get", LOST), [KILLED], ["received a"], unexplained=1)
        self.assert_found(request("get", LOST), [KILLED, ALSO_KILLED], ["received a"], lost_gets=1)

    def test_one_kill_cuts_a_response_that_has_begun(self):
        self.assert_found(request("download", LOST, heard=True), [KILLED], ["received a"], lost_gets=1)

    def test_one_kill_costs_a_post(self):
        self.assert_found(request("post", LOST), [KILLED], ["received a"], lost_posts=1)

    def test_a_kill_at_another_time_explains_nothing(self):
        later = ("member-1-agent", "killed", 13.0, 13.0)
        self.assert_found(request("post", LOST), [later], ["received a"], unexplained=1)

    def test_a_kill_of_another_sites_program_explains_nothing(self):
        other = ("library-node", "killed", 10.5, 10.5)
        self.assert_found(request("post", LOST), [other], ["received a"], unexplained=1)

    def test_a_killed_proxy_loses_what_it_had(self):
        of_proxy = ("proxy-a", "killed", 10.5, 10.5)
        self.assert_found(request("get", LOST), [of_proxy], ["received a"], lost_with_proxy=1)

    def test_an_idle_connection_may_be_closed(self):
        self.assert_found(request("get", LOST, reused=True), [], [], redialled=1)
        self.assert_found(request("get", LOST, reused=True), [], ["received a"], unexplained=1)
        self.assert_found(request("get", LOST), [], [], unexplained=1)


if __name__ == "__main__":
    unittest.main()
