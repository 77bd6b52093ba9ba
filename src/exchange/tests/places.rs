//! A responder that says how many places it has.

use super::*;
use crate::bridge::BackendToken;
use crate::bridge::places::Places;
use crate::bridge::request::SWITCH;
use crate::exchange::reuse::Reuse;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const DIGITS: &str = "0123456789abcdef0123456789abcdef";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ACK: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn message(limit: u32, at: u64) -> String {
    format!("HTTP/1.1 102 Processing\r\nCloudbridge-Places: {limit}; at={at}; by={DIGITS}\r\n\r\n")
}

fn given_back(at: u64) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n\
         Cloudbridge-Places: 2; at={at}; by={DIGITS}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn started(opening: Opening) -> Fixture {
    let token = BackendToken::parse(DIGITS.as_bytes());
    Fixture::start_with(GET, opening, |exchange| exchange.with_speaker(token))
}

impl Fixture {
    fn said(&self) -> Option<(u32, u64)> {
        self.exchange.take_places().map(|Places { limit, at }| (limit, at))
    }

    /// What the backend sends; the rest is sent once the exchange waits.
    fn answer(&mut self, text: &str) {
        self.backend().write_all(text.as_bytes()).unwrap();
    }

    /// Advances to the end, and returns what becomes of the responder's connection.
    #[track_caller]
    fn finish(&mut self) -> Reuse {
        let began = Instant::now();
        loop {
            match self.advance() {
                Ok(Outcome::Finished(decision)) => return decision.responder,
                Ok(_) => {}
                Err(error) => panic!("failed: {error}"),
            }
            assert!(began.elapsed() < DEADLINE, "it does not finish");
        }
    }

    #[track_caller]
    fn assert_client_got(&mut self, text: &str) {
        let mut got = vec![0; text.len()];
        self.client().read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), text);
        assert_eq!(read_some(self.client()), 0);
    }
}

#[test]
fn messages_before_the_response_reach_the_owner_and_not_the_client() {
    let text = format!("{}{}{OK}", message(3, 17), message(2, 18));
    for split in [1, 30, text.len() / 3, text.len() - 3] {
        let mut fixture = started(Opening::FromInput);
        fixture.answer(&text[..split]);
        for _ in 0..3 {
            assert!(fixture.advance().is_ok());
        }
        fixture.answer(&text[split..]);
        assert_eq!(fixture.finish(), Reuse::Keep(None));
        assert_eq!((fixture.said(), fixture.said()), (Some((2, 18)), None));
        fixture.assert_client_got(OK);
    }
}

#[test]
fn a_message_of_somebody_else_is_an_interim_response_without_its_field() {
    let mut fixture = started(Opening::FromInput);
    fixture.answer(&message(3, 17).replace("by=0", "by=1"));
    fixture.answer(OK);
    assert_eq!(fixture.finish(), Reuse::Keep(None));
    assert_eq!(fixture.said(), None);
    fixture.assert_client_got(&format!("HTTP/1.1 102 Processing\r\n\r\n{OK}"));
}

#[test]
fn a_message_puts_no_deadline_off() {
    let mut fixture = started(Opening::FromInput);
    fixture.answer(&message(3, 17));
    let began = Instant::now();
    while fixture.said().is_none() {
        match fixture.advance() {
            Ok(Outcome::Wait { progress } | Outcome::Busy { progress }) => assert!(!progress),
            _ => panic!("it ended"),
        }
        assert!(began.elapsed() < DEADLINE, "it does not come");
    }
}

#[test]
fn a_request_is_given_back_and_the_connection_stays_if_nothing_else_was_sent() {
    for (behind, stays, said) in [
        (String::new(), true, (2, 18)),
        (message(1, 19), true, (1, 19)),
        (message(1, 17), true, (2, 18)),
        (message(1, 19)[..40].to_owned(), false, (2, 18)),
        (OK.to_owned(), false, (2, 18)),
    ] {
        let mut fixture = started(Opening::FromInput);
        fixture.answer(&format!("{}{behind}", given_back(18)));
        let error = fixture.advance_to_error(|_| {});
        assert_eq!(error.action(), Action::Retry);
        assert!(
            matches!(error.cause, Cause::GivenBack { stays: is } if is == stays),
            "{behind:?}: {error:?}"
        );
        assert_eq!(fixture.said(), Some(said), "{behind:?}");
        assert_eq!(read_some(fixture.client()), 0);
        assert_eq!(fixture.requester.input.bytes(), GET.as_bytes());
    }
}

#[test]
fn a_connection_that_gives_a_request_back_and_closes_does_not_stay() {
    let mut fixture = started(Opening::FromInput);
    fixture.answer(&given_back(18).replace("Content", "Connection: close\r\nContent"));
    let error = fixture.advance_to_error(|_| {});
    assert!(matches!(error.cause, Cause::GivenBack { stays: false }), "{error:?}");
}

#[test]
fn an_announced_request_is_given_back_or_acknowledged_whatever_was_said_before() {
    let text = format!("{}{}", message(2, 17), given_back(18));
    for split in 0..text.len() {
        let mut fixture = started(Opening::Switch(SWITCH));
        fixture.answer(&text[..split]);
        for _ in 0..2 {
            assert!(matches!(fixture.advance(), Ok(Outcome::Wait { progress: false })));
        }
        assert_eq!(fixture.exchange.stage(), Stage::Ack);
        fixture.answer(&text[split..]);
        let error = fixture.advance_to_error(|_| {});
        assert!(matches!(error.cause, Cause::GivenBack { stays: true }), "{error:?}");
        assert_eq!((error.progress, fixture.said()), (Progress::Nothing, Some((2, 18))));
    }
    let mut fixture = started(Opening::Switch(SWITCH));
    fixture.answer(&format!("{}{ACK}", message(2, 17)));
    fixture.advance_until(|fixture| fixture.exchange.stage() > Stage::Ack);
    fixture.answer(OK);
    assert_eq!(fixture.finish(), Reuse::Keep(None));
    fixture.assert_client_got(OK);
}

#[test]
fn only_whole_messages_may_follow_a_response() {
    for (behind, reuse, said) in [
        (message(3, 17), Reuse::Keep(None), Some((3, 17))),
        (message(3, 17) + &message(4, 18), Reuse::Keep(None), Some((4, 18))),
        (message(3, 17)[..40].to_owned(), Reuse::Close, None),
        (message(3, 17) + "x", Reuse::Stray, Some((3, 17))),
        (message(3, 17).replace("by=0", "by=1"), Reuse::Stray, None),
    ] {
        let mut fixture = started(Opening::FromInput);
        fixture.answer(&format!("{OK}{behind}"));
        assert_eq!(fixture.finish(), reuse, "{behind:?}");
        assert_eq!(fixture.said(), said, "{behind:?}");
        fixture.assert_client_got(OK);
    }
}

#[test]
fn without_a_token_nothing_is_a_message() {
    let mut fixture = Fixture::start(GET);
    fixture.answer(&format!("{}{}", message(3, 17), given_back(18)));
    fixture.finish();
    let told = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    fixture.assert_client_got(&format!("HTTP/1.1 102 Processing\r\n\r\n{told}"));
}

/// It must not keep a worker busy for as long as it likes.
#[test]
fn one_that_sends_nothing_but_messages_has_failed() {
    let mut fixture = started(Opening::Switch(SWITCH));
    let text: String = (1..=1_000).map(|at| message(3, at)).collect();
    fixture.answer(&text);
    let error = fixture.advance_to_error(|_| {});
    assert!(matches!(error.cause, Cause::Stray), "{error:?}");
    assert_eq!((error.progress, error.action()), (Progress::Nothing, Action::Retry));
    assert!(fixture.said().is_some_and(|(_, at)| at < 100));
}

/// A few messages before the acknowledgement are nothing strange.
#[test]
fn some_messages_may_come_before_an_acknowledgement() {
    let mut fixture = started(Opening::Switch(SWITCH));
    let text: String = (1..=60).map(|at| message(3, at)).collect();
    fixture.answer(&format!("{text}{ACK}"));
    let began = Instant::now();
    while fixture.exchange.stage() == Stage::Ack {
        assert!(fixture.advance().is_ok() && began.elapsed() < DEADLINE);
    }
    assert_eq!(fixture.said(), Some((3, 60)));
}
