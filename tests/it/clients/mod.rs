//! The modules for Node, Python and Ruby from outside, one behaviour a function: the same small
//! application in each language (`apps/`), at the real proxy or at one that the test plays. A
//! language that is not installed is skipped, and that is said.

mod language;
mod program;

// With the real proxy.
mod deregistration;
mod examples;
mod node;
mod real;
mod wsgi;

// With a proxy that the test plays.
mod protocol;

use language::Language;

/// Tests of these names for each language: `node::serves_...`, and so on.
macro_rules! in_each_language {
    ($($module:ident::$name:ident,)*) => {
        in_each_language!(node_js, Language::Node, $($module::$name,)*);
        in_each_language!(python_wsgi, Language::Wsgi, $($module::$name,)*);
        in_each_language!(python_asyncio, Language::Asyncio, $($module::$name,)*);
        in_each_language!(ruby, Language::Ruby, $($module::$name,)*);
    };
    ($folder:ident, $language:expr, $($module:ident::$name:ident,)*) => {
        mod $folder {
            use super::Language;
            $(
                #[test]
                fn $name() {
                    if $language.is_here() {
                        super::$module::$name($language);
                    }
                }
            )*
        }
    };
}

in_each_language! {
    real::file_passes_the_checks_of_its_language,
    real::requests_with_and_without_bodies_are_answered,
    real::a_megabyte_up_and_eight_down_arrive_whole,
    real::sixteen_clients_share_four_bridges,
    real::two_hosts_are_served_with_their_keys,
    real::refusal_is_logged_once_with_its_reason,
    real::bridges_are_back_after_a_restart_of_the_proxy,
    real::sigterm_finishes_the_request_under_way,
    deregistration::deregistration_under_load_loses_no_request,
    protocol::bridge_registers_acknowledges_and_is_reused,
    protocol::answers_may_come_byte_by_byte,
    protocol::other_bridges_are_dialled_when_the_first_is_accepted,
    protocol::bridge_is_dialled_again_after_a_504,
    protocol::retry_after_of_a_503_is_waited_for,
    protocol::answer_that_is_not_http_is_logged_and_tried_again,
    protocol::request_that_crosses_the_leave_is_served,
    protocol::bridges_are_closed_when_the_leave_is_refused,
    protocol::parked_bridges_are_closed_without_the_extension,
}
