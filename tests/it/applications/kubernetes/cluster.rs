//! As much of a cluster as Pods can see: a network, its DNS, and the files of their volumes.

use super::super::names::{answer, question};
use super::super::network;
use super::manifests::{Manifests, text};
use super::pod::{Files, Pod};
use crate::common::{Dir, installed, run_well, skipped};
use serde_json::Value;
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// The node, which is the test: its kubelet, its DNS, and its clients.
const NODE: [u8; 4] = [10, 244, 0, 1];

/// As the kubelet writes it.
const RESOLV_CONF: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 10.244.0.1\noptions ndots:5\n";

/// A cluster, alone in the network of the test.
pub struct Cluster {
    manifests: Manifests,
    names: Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>,
    /// The Secrets: names, and the files in them.
    secrets: HashMap<&'static str, Files>,
    dir: Dir,
    pods: u8,
}

impl Cluster {
    /// Starts one, unless something is missing, which is said. The process must be alone in a network.
    #[track_caller]
    pub fn start() -> Option<Cluster> {
        let manifests = Manifests::read()?;
        if !installed("setpriv", &["setpriv", "--version"]) {
            return None;
        }
        // With an address of its own: otherwise it has that of one of its ports, and another when that
        // Pod goes. The other Pods would go on sending to the old one until they ask again: half a
        // minute in which nobody gets an answer.
        let bridge = ["link", "add", "cluster", "address", "02:00:00:00:00:01", "type", "bridge"];
        let bridge = Command::new("ip").args(bridge).status();
        if !bridge.is_ok_and(|status| status.success()) {
            skipped("this kernel has no network bridges");
            return None;
        }
        let node = Ipv4Addr::from(NODE);
        network::run(&format!("ip addr add {node}/24 dev cluster; ip link set cluster up"));
        let names: Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>> = Arc::default();
        serve_names(node, &names);
        let dir = Dir::new();
        let file = dir.write("secrets", "");
        let key = |words: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-key"));
            run_well(command.args(words)).trim().to_owned()
        };
        // The commands in the comments of the manifests.
        let path = file.display().to_string();
        key(&["add", &path]);
        let app_key = key(&["--secrets", &path, "--modern", "--expires", "90d", "app.example.com"]);
        let secrets = std::fs::read_to_string(&file).expect("the key tool has written it");
        let secrets = HashMap::from([
            ("cloudbridge-secrets", vec![("secrets".to_owned(), secrets)]),
            ("app-key", vec![("key".to_owned(), app_key)]),
        ]);
        Some(Cluster { manifests, names, secrets, dir, pods: 0 })
    }

    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Starts a Pod of a Deployment.
    #[track_caller]
    pub fn pod(&mut self, deployment: &str) -> Pod {
        self.pods += 1;
        let folder = self.dir.path().join(format!("pod{}", self.pods));
        let etc = folder.join("etc");
        std::fs::create_dir_all(&etc).expect("a folder of the test");
        for (name, contents) in [
            ("resolv.conf", RESOLV_CONF),
            ("nsswitch.conf", "hosts: files dns\n"),
            ("hosts", "127.0.0.1 localhost\n"),
        ] {
            std::fs::write(etc.join(name), contents).expect("a file of the test");
        }
        let [a, b, c, d] = NODE;
        let address = Ipv4Addr::new(a, b, c, d + self.pods);
        let template = self.manifests.pod(deployment);
        Pod::start(template, address, &folder, |volume| self.files(volume))
    }

    /// What is in a volume; `None` if it begins empty.
    #[track_caller]
    fn files(&self, volume: &Value) -> Option<Files> {
        if let Some(name) = volume["secret"]["secretName"].as_str() {
            return Some(self.secrets[name].clone());
        }
        let name = volume["configMap"]["name"].as_str()?;
        let data = &self.manifests.find("ConfigMap", name)["data"];
        let files = data.as_object().expect("files").iter();
        Some(files.map(|(name, contents)| (name.clone(), text(contents).to_owned())).collect())
    }

    /// Has the name of a headless Service stand for these Pods.
    pub fn publish(&self, service: &str, pods: &[&Pod]) {
        let service = text(&self.manifests.find("Service", service)["metadata"]["name"]);
        let addresses = pods.iter().map(|pod| pod.address).collect();
        let name = format!("{service}.default.svc.cluster.local");
        self.names.lock().expect("lock").insert(name, addresses);
    }
}

/// Answers for every name; one that nobody has set has no address.
#[track_caller]
fn serve_names(node: Ipv4Addr, names: &Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>) {
    let socket = UdpSocket::bind((node, 53)).expect("the port is free in this network");
    let names = Arc::clone(names);
    // It ends with the test's process, which is in this network for nothing else.
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let (name, end) = question(&query[..length]);
            let found = names.lock().expect("lock").get(&name).cloned().unwrap_or_default();
            let _ = socket.send_to(&answer(&query[..end], &found), from);
        }
    });
}
