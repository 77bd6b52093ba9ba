//! The modules for Node, Python and Ruby from outside, one behaviour a function: the same small application in each language
//! (`apps/`), at the real proxy or at one that the test plays. A language that is not installed is skipped, and that is said.

mod language;
mod program;

// With the real proxy.
mod leaving;
mod node;
mod real;
mod wsgi;

// With a proxy that the test plays.
mod played;

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
    real::the_file_has_no_mistake_that_its_language_can_find,
    real::requests_with_and_without_bodies_are_answered,
    real::a_megabyte_up_and_eight_down_arrive_whole,
    real::sixteen_clients_share_four_bridges,
    real::two_hosts_are_served_with_their_keys,
    real::a_refusal_is_told_once_and_says_why,
    real::after_a_restart_of_the_proxy_it_is_back,
    real::a_request_under_way_is_finished_before_it_stops,
    leaving::no_request_is_lost_when_it_leaves,
    played::it_registers_and_acknowledges_and_keeps_the_bridge,
    played::answers_may_come_byte_by_byte,
    played::one_bridge_tries_for_all,
    played::a_504_means_dial_again_at_once,
    played::a_full_proxy_is_asked_again_when_it_says,
    played::what_is_no_proxy_is_named_and_tried_again,
    played::it_asks_to_leave_and_serves_what_still_comes,
    played::it_closes_its_bridges_if_it_may_not_leave,
    played::without_the_extension_it_closes_what_is_parked,
}
