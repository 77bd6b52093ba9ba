//! The modules for Node, Python and Ruby from outside, one behaviour a function: the same small
//! application in each language (`apps/`) and under each server that they feed, at the real proxy
//! or at one that the test plays. What is not installed is skipped, and that is said.

pub mod authority;
mod language;
mod program;

// With the real proxy.
mod deregistration;
mod encryption;
mod examples;
mod guarantees;
mod lanes;
mod node;
mod packages;
mod real;
mod wsgi;

// With a proxy that the test plays.
mod places;
mod protocol;
mod watched;

use language::Language;

/// Tests of these names for each of these: `node_js::requests_...`, and so on.
macro_rules! in_each {
    ([$($folder:ident: $language:ident,)*] $tests:tt) => {
        $(
            mod $folder {
                tests_of!($language, $tests);
            }
        )*
    };
}

macro_rules! tests_of {
    ($language:ident, {$($module:ident::$name:ident,)*}) => {
        $(
            #[test]
            fn $name() {
                if crate::clients::Language::$language.is_here() {
                    crate::clients::$module::$name(crate::clients::Language::$language);
                }
            }
        )*
    };
}

in_each! { [
    node_js: Node,
    python_wsgi: Wsgi,
    python_asyncio: Asyncio,
    ruby: Ruby,
    uvicorn: Uvicorn,
    hypercorn: Hypercorn,
    gunicorn: Gunicorn,
    rack: Rack,
    axum: Axum,
] {
    real::requests_with_and_without_bodies_are_answered,
    real::a_megabyte_up_and_eight_down_arrive_whole,
    real::sixteen_clients_share_four_bridges,
    real::two_hosts_are_served_with_their_keys,
    real::bridges_are_back_after_a_restart_of_the_proxy,
    real::sigterm_finishes_the_request_under_way,
    deregistration::deregistration_under_load_loses_no_request,
    guarantees::extensions_are_announced_as_the_table_says,
    guarantees::fields_of_the_backend_are_not_taken_from_the_application,
    places::places_are_announced_as_the_table_says,
} }

// Of the crate's listener each thread dials for itself.
mod checked {
    in_each! { [
        node_js: Node,
        python: Wsgi,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
        gunicorn: Gunicorn,
        ruby: Ruby,
        rack: Rack,
    ] {
        real::file_passes_the_checks_of_its_language,
        real::refusal_is_logged_once_with_its_reason,
    } }
}

// Servers that read the requests, and not the application.
mod served {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
        gunicorn: Gunicorn,
        rack: Rack,
        axum: Axum,
    ] {
        guarantees::unread_body_does_not_reach_the_next_request,
    } }
}

mod receipts {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
    ] {
        guarantees::receipt_precedes_what_must_not_be_repeated,
        guarantees::post_of_a_program_that_is_killed_is_served_by_another,
    } }
}

mod tunnels {
    in_each! { [
        node_js: Node,
        python_asyncio: Asyncio,
        ruby: Ruby,
        axum: Axum,
    ] {
        guarantees::tunnel_goes_on_after_the_clients_end,
    } }
}

mod websockets {
    in_each! { [
        node_js: Node,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
    ] {
        node::websockets_work_and_do_not_use_up_the_bridges,
    } }
}

// At a proxy that they dial by TLS.
mod encrypted {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        python_asyncio: Asyncio,
        ruby: Ruby,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
        gunicorn: Gunicorn,
        rack: Rack,
        axum: Axum,
    ] {
        encryption::requests_are_served_over_tls,
        encryption::leave_over_tls_under_load_loses_no_request,
        encryption::unknown_issuer_is_said_in_one_line,
        encryption::expired_certificate_is_said_in_one_line,
        encryption::wrong_name_is_said_in_one_line_and_can_be_another,
        encryption::certificate_is_shown_to_a_proxy_that_requires_one,
    } }
}

mod encrypted_tunnels {
    in_each! { [
        node_js: Node,
        python_asyncio: Asyncio,
        ruby: Ruby,
        axum: Axum,
    ] {
        encryption::tunnel_over_tls_goes_on_after_the_clients_end,
    } }
}

mod encrypted_websockets {
    in_each! { [
        node_js: Node,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
    ] {
        encryption::websockets_over_tls_work_and_do_not_use_up_the_bridges,
    } }
}

// What the modules themselves say, byte for byte. gunicorn works in another process than the one
// that the test sees, so what it is at cannot be waited for.
mod bytes {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        python_asyncio: Asyncio,
        ruby: Ruby,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
        rack: Rack,
    ] {
        protocol::bridge_registers_acknowledges_and_is_reused,
        protocol::answers_may_come_byte_by_byte,
        protocol::other_bridges_are_dialled_when_the_first_is_accepted,
        protocol::bridge_is_dialled_again_after_a_504,
        protocol::retry_after_of_a_503_is_waited_for,
        protocol::answer_that_is_not_http_is_logged_and_tried_again,
        protocol::request_that_crosses_the_leave_is_served,
        protocol::bridges_are_closed_when_the_leave_is_refused,
        protocol::parked_bridges_are_closed_without_the_extension,
        protocol::keys_are_proven_and_not_sent,
        protocol::keys_are_not_sent_to_a_proxy_that_does_not_ask,
        protocol::bearer_keys_are_sent_when_that_is_allowed,
        protocol::second_nonce_is_a_refusal,
    } }
}

// With several proxies.
mod shared {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
        gunicorn: Gunicorn,
        ruby: Ruby,
        rack: Rack,
        axum: Axum,
    ] {
        places::proxies_are_told_when_all_places_are_taken_and_when_one_is_free,
        places::match_without_a_place_is_given_back,
        places::freed_place_goes_to_the_proxy_that_has_waited_longest,
        places::request_is_served_by_the_program_that_has_a_place,
    } }
}

mod given_back {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        uvicorn: Uvicorn,
        hypercorn: Hypercorn,
        gunicorn: Gunicorn,
        ruby: Ruby,
        rack: Rack,
        axum: Axum,
    ] {
        places::proxy_that_does_not_know_places_is_told_nothing,
        places::plain_request_may_follow_a_match_that_was_given_back,
        places::requests_without_a_place_are_given_back,
        places::request_that_is_not_held_waits_for_its_place,
        places::freed_place_stays_where_requests_have_waited_as_long,
        places::place_is_not_kept_for_a_proxy_that_does_not_wait,
        places::proxy_is_told_again_when_a_bridge_has_ended,
    } }
}

mod far_away {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        ruby: Ruby,
        rack: Rack,
        axum: Axum,
    ] {
        places::proxy_that_has_not_used_a_place_in_time_gets_another,
    } }
}

// Libraries between the proxies and a server that reads and writes itself.
mod between {
    in_each! { [
        ruby: Ruby,
        rack: Rack,
        axum: Axum,
    ] {
        watched::fields_of_the_backend_are_taken_from_what_the_application_sends,
        watched::what_comes_byte_by_byte_is_understood,
        watched::bodies_of_every_kind_pass,
        watched::two_proxies_share_places_under_load,
        watched::two_proxies_by_tls_share_places,
        watched::deregistration_from_two_proxies_loses_no_request,
        watched::place_is_free_when_the_bridge_has_ended,
    } }
}

mod between_tunnels {
    in_each! { [
        ruby: Ruby,
        axum: Axum,
    ] {
        watched::tunnel_has_its_place_until_it_ends,
    } }
}

// Modules that read between two requests.
mod probed {
    in_each! { [
        node_js: Node,
        python_wsgi: Wsgi,
        ruby: Ruby,
        rack: Rack,
        axum: Axum,
    ] {
        places::probe_without_a_place_is_given_back,
    } }
}
