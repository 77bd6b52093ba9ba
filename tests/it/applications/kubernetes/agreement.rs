//! What a schema cannot say: names that must be the same in several places, and times, one
//! of them longer than the other.

use super::manifests::{Manifests, container, files, list, number, port, text};
use crate::common::{Bridge, Proxy, Run, installed, run_well};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Where `.ci/run` installs the schema checker, and otherwise wherever it is.
fn checker() -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/test-tools/kubernetes/bin/kubernetes-validate");
    if own.exists() { own.display().to_string() } else { "kubernetes-validate".to_owned() }
}

/// `kubernetes-validate` has the OpenAPI schemas of Kubernetes; the oldest here is the first in which
/// `sleep` may be relied upon.
#[test]
fn the_schema_of_kubernetes_is_kept() {
    let checker = checker();
    if !installed("kubernetes-validate", &[&checker, "--version"]) {
        return;
    }
    for version in ["1.30", "1.37"] {
        let mut command = Command::new(&checker);
        run_well(command.args(["--strict", "-k", version]).args(files()));
    }
    // It does look at what it is given.
    let wrong = crate::common::Dir::new();
    let manifest = std::fs::read_to_string(&files()[0]).expect("a manifest");
    let file = wrong.write("wrong.yaml", &manifest.replace("replicas: 2", "replicas: two"));
    let refused = Command::new(&checker).arg("--strict").arg(file).output().expect("it runs");
    assert!(!refused.status.success(), "{refused:?}");
}

/// The value of a setting of the proxy's, in seconds.
#[track_caller]
fn seconds(settings: &str, name: &str) -> u64 {
    let line = settings.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().trim_end_matches('s').parse().expect("seconds")
}

#[track_caller]
fn settings(manifests: &Manifests) -> &str {
    text(&manifests.find("ConfigMap", "cloudbridge")["data"]["cloudbridge.conf"])
}

#[test]
fn the_proxys_settings_are_good() {
    let Some(manifests) = Manifests::read() else { return };
    let settings = settings(&manifests)
        .replace("/etc/cloudbridge-secrets/secrets", "{dir}/secrets")
        .replace("/run/cloudbridge", "{dir}");
    let files = [("conf", &*settings), ("secrets", "1600000000:sesame\n")];
    let run = Run::new(&["-c", "{dir}/conf", "-t"], &files);
    assert!(run.status.success(), "{run:?}");
}

/// The kubelet must not kill what still finishes requests.
#[test]
fn grace_periods_cover_the_drains() {
    let Some(manifests) = Manifests::read() else { return };
    let grace = |pod: &str| number(&manifests.pod(pod)["spec"]["terminationGracePeriodSeconds"]);
    let settings = settings(&manifests);
    let drain = seconds(settings, "drain-delay ") + seconds(settings, "drain-timeout ");
    assert!(drain < grace("cloudbridge"), "{drain}");
    let pod = manifests.pod("app");
    let command = list(&container(pod, "agent")["command"]).iter().map(text);
    let mut command = command.filter_map(|word| word.strip_prefix("--grace="));
    let agent = command.next().expect("a grace").trim_end_matches('s').parse::<u64>();
    assert!(agent.expect("seconds") < grace("app"));
    let sleep = number(&container(pod, "app")["lifecycle"]["preStop"]["sleep"]["seconds"]);
    assert!(sleep < grace("app"));
}

/// Whether these labels have all of the selector's.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().expect("labels").iter().all(|(name, value)| labels[name] == *value)
}

#[test]
fn selectors_ports_and_volumes_name_what_is_there() {
    let Some(manifests) = Manifests::read() else { return };
    let proxy = manifests.pod("cloudbridge");
    let labels = |deployment| &manifests.pod(deployment)["metadata"]["labels"];
    for service in ["cloudbridge", "cloudbridge-bridges"] {
        let spec = &manifests.find("Service", service)["spec"];
        assert!(selects(&spec["selector"], labels("cloudbridge")), "{service}");
        for its in list(&spec["ports"]) {
            port(container(proxy, "cloudbridge"), &its["targetPort"]);
        }
    }
    let headless = &manifests.find("Service", "cloudbridge-bridges")["spec"];
    assert_eq!(headless["clusterIP"], "None");
    assert_eq!(headless["publishNotReadyAddresses"], true);
    // The agent dials the Pods themselves, at the default port.
    let bridges = port(container(proxy, "cloudbridge"), &Value::from("bridges"));
    assert_eq!((bridges, number(&list(&headless["ports"])[0]["port"])), (8079, 8079));
    for name in ["cloudbridge", "app"] {
        let deployment = &manifests.find("Deployment", name)["spec"];
        assert!(selects(&deployment["selector"]["matchLabels"], labels(name)));
        let budget = &manifests.find("PodDisruptionBudget", name)["spec"];
        assert!(selects(&budget["selector"]["matchLabels"], labels(name)));
        for container in list(&manifests.pod(name)["spec"]["containers"]) {
            let probe = &container["readinessProbe"]["httpGet"];
            if !probe.is_null() {
                assert_eq!(probe["path"], "/healthz");
                port(container, &probe["port"]);
            }
        }
    }
    let rules = &manifests.find("NetworkPolicy", "cloudbridge")["spec"];
    assert!(selects(&rules["podSelector"]["matchLabels"], labels("cloudbridge")));
    for rule in list(&rules["ingress"]) {
        for its in list(&rule["ports"]) {
            port(container(proxy, "cloudbridge"), &its["port"]);
        }
        for from in list(&rule["from"]) {
            let agents = &from["podSelector"]["matchLabels"];
            assert!(agents.is_null() || selects(agents, labels("app")), "{agents}");
        }
    }
}

/// No Pod has more rights than it needs, and no key can be read by everybody.
#[test]
fn pods_have_few_rights() {
    let Some(manifests) = Manifests::read() else { return };
    for document in manifests.all().iter().filter(|it| it["kind"] == "Deployment") {
        let spec = &document["spec"]["template"]["spec"];
        let pod = &spec["securityContext"];
        assert_eq!(pod["runAsNonRoot"], true);
        assert_ne!(number(&pod["runAsUser"]), 0);
        assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(spec["automountServiceAccountToken"], false);
        for container in list(&spec["containers"]) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{container}");
        }
        for volume in list(&spec["volumes"]).iter().filter(|it| !it["secret"].is_null()) {
            assert_eq!(number(&volume["secret"]["defaultMode"]), 0o440, "{volume}");
        }
    }
}

/// The autoscaler asks for series that the proxy has, of the host that the agent registers, and for
/// fewer busy slots than a Pod has.
#[test]
fn the_autoscaler_asks_for_metrics_that_there_are() {
    let Some(manifests) = Manifests::read() else { return };
    let command = list(&container(manifests.pod("app"), "agent")["command"]).iter().map(text);
    let words: Vec<&str> = command.collect();
    let option = |name| words.iter().find_map(|word| word.strip_prefix(name)).expect(name);
    let (host, slots) = (option("--host="), option("-n").parse::<u64>().expect("a number"));
    let proxy = Proxy::start();
    let _parked = Bridge::park(&proxy, &[host]);
    let answer = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let scaler = &manifests.find("HorizontalPodAutoscaler", "app")["spec"];
    let target = &scaler["scaleTargetRef"];
    manifests.find(text(&target["kind"]), text(&target["name"]));
    let comment =
        std::fs::read_to_string(files().iter().find(|it| it.ends_with("hpa.yaml")).expect("it"));
    let comment = comment.expect("a manifest");
    let metrics = list(&scaler["metrics"]);
    assert_eq!(metrics.len(), 2);
    for metric in metrics.iter().map(|it| &it["external"]) {
        let name = text(&metric["metric"]["name"]);
        let labels = metric["metric"]["selector"]["matchLabels"].as_object().expect("labels");
        let is_it = |line: &str| {
            let of_name = line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            of_name
                && labels
                    .iter()
                    .all(|(label, value)| line.contains(&format!("{label}=\"{}\"", text(value))))
        };
        assert_eq!(labels["host"], host);
        assert!(answer.lines().any(is_it), "{metric}: {answer}");
        assert!(comment.contains(&format!("seriesQuery: {name}\n")), "{name}");
        let target: u64 = text(&metric["target"]["averageValue"]).parse().expect("a number");
        assert!((1..slots).contains(&target));
    }
}
