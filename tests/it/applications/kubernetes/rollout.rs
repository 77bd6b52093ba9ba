//! The Pods of the manifests at work: both Deployments are rolled out anew under load.

use super::super::network::alone;
use super::cluster::Cluster;
use super::manifests::{container, number};
use super::pod::{Pod, get};
use crate::common::{Asking, eventually};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The host that the application's agent serves.
const HOST: &str = "app.example.com";

/// The Service for clients: where they may go, and those who do.
#[derive(Default)]
struct Service {
    endpoints: Mutex<Vec<SocketAddr>>,
    asking: Asking,
}

impl Service {
    /// Makes these Pods its endpoints.
    fn publish(&self, proxies: &[&Pod]) {
        let endpoints = proxies.iter().map(|pod| pod.at("cloudbridge", "clients")).collect();
        *self.endpoints.lock().expect("lock") = endpoints;
    }

    /// Asks one endpoint after the other, over a connection for each request, until it is over.
    #[track_caller]
    fn ask(&self) {
        while !self.asking.is_over() {
            let number = self.asking.served();
            let endpoint = {
                let endpoints = self.endpoints.lock().expect("lock");
                endpoints[number % endpoints.len()]
            };
            assert_served(endpoint);
            self.asking.count();
        }
    }
}

#[track_caller]
fn assert_served(proxy: SocketAddr) {
    let answer = get(proxy, HOST, "/").unwrap_or_else(|| panic!("no answer from {proxy}"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{proxy}: {answer}");
    assert!(answer.ends_with("\r\n\r\nhello from an application\n"), "{proxy}: {answer}");
}

/// Waits until the agents have found the proxy.
#[track_caller]
fn await_bridges(proxy: &Pod) {
    let parked = format!("cloudbridge_bridges{{host=\"{HOST}\",state=\"parked\"}} 32\n");
    eventually("two agents have parked their bridges", || {
        let metrics = get(proxy.at("cloudbridge", "admin"), "localhost", "/metrics");
        metrics.is_some_and(|metrics| metrics.contains(&parked))
    });
}

/// Takes a Pod of the application away as the kubelet does: TERM for all containers but the one whose
/// preStop hook sleeps, and for that one afterwards. The agent must be done before.
#[track_caller]
fn delete_app(cluster: &Cluster, mut pod: Pod) {
    let app = container(cluster.manifests().pod("app"), "app");
    let sleep = Duration::from_secs(number(&app["lifecycle"]["preStop"]["sleep"]["seconds"]));
    let told = Instant::now();
    pod.process("agent").terminate();
    assert!(pod.process("agent").wait_exit().success());
    assert!(told.elapsed() < sleep, "the application would have ended before its agent");
    pod.process("app").terminate();
    pod.process("app").wait_exit();
}

#[test]
fn pods_are_replaced_and_no_request_is_lost() {
    if !alone("applications::kubernetes::rollout::pods_are_replaced_and_no_request_is_lost") {
        return;
    }
    let Some(mut cluster) = Cluster::start() else { return };
    let [mut old, kept] = [cluster.pod("cloudbridge"), cluster.pod("cloudbridge")];
    // Before they are ready: publishNotReadyAddresses.
    cluster.publish("cloudbridge-bridges", &[&old, &kept]);
    let [old_app, kept_app] = [cluster.pod("app"), cluster.pod("app")];
    eventually("the proxies are ready", || {
        [&old, &kept].iter().all(|pod| pod.is_ready("cloudbridge"))
    });
    eventually("the applications are ready", || {
        [&old_app, &kept_app].iter().all(|pod| pod.is_ready("agent"))
    });
    let service = Service::default();
    service.publish(&[&old, &kept]);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| service.ask())).collect();
        let ends = service.asking.ends();
        service.asking.await_more(20);

        // The application. What is new is ready before what is old goes.
        let new_app = cluster.pod("app");
        eventually("the new one is ready", || new_app.is_ready("agent"));
        delete_app(&cluster, old_app);
        service.asking.await_more(20);

        // The proxies. The agents find the new one by its name.
        let new = cluster.pod("cloudbridge");
        cluster.publish("cloudbridge-bridges", &[&old, &kept, &new]);
        await_bridges(&new);
        assert!(new.is_ready("cloudbridge"));
        service.publish(&[&old, &kept, &new]);
        service.asking.await_more(20);
        old.process("cloudbridge").terminate();
        // The Service still leads to it for a while, and it serves.
        eventually("its probe fails", || !old.is_ready("cloudbridge"));
        assert_served(old.at("cloudbridge", "clients"));
        service.asking.await_more(20);
        service.publish(&[&kept, &new]);
        assert!(old.process("cloudbridge").wait_exit().success());
        cluster.publish("cloudbridge-bridges", &[&kept, &new]);
        service.asking.await_more(20);
        drop(ends);
        clients.into_iter().for_each(|client| client.join().expect("every request is served"));

        // An agent whose last bridge has gone is not ready.
        assert!(kept_app.is_ready("agent"));
        drop([kept, new]);
        eventually("its probe fails", || !kept_app.is_ready("agent"));
    });
}
