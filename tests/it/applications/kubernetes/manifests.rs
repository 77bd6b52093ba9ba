//! The manifests as they are shipped.

use crate::common::{installed, run_well};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's, which has its packages; another may be first in the PATH.
const PYTHON: &str = "/usr/bin/python3";

/// Prints the documents of files of YAML as one array of JSON.
const TO_JSON: &str = "import json, sys, yaml\n\
    documents = [d for file in sys.argv[1:] for d in yaml.safe_load_all(open(file))]\n\
    json.dump(documents, sys.stdout)\n";

/// All documents.
pub struct Manifests(Vec<Value>);

/// The files.
#[track_caller]
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/kubernetes");
    let entries = std::fs::read_dir(folder).expect("the folder of the manifests");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

impl Manifests {
    /// Reads them, unless what reads YAML is missing, which is said.
    #[track_caller]
    pub fn read() -> Option<Manifests> {
        if !installed("python3-yaml", &[PYTHON, "-c", "import yaml"]) {
            return None;
        }
        let json = run_well(Command::new(PYTHON).args(["-c", TO_JSON]).args(files()));
        Some(Manifests(serde_json::from_str(&json).expect("JSON")))
    }

    pub fn all(&self) -> &[Value] {
        &self.0
    }

    /// The one of this kind and name.
    #[track_caller]
    pub fn find(&self, kind: &str, name: &str) -> &Value {
        let is_it = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
        self.0.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The Pod of a Deployment.
    #[track_caller]
    pub fn pod(&self, deployment: &str) -> &Value {
        &self.find("Deployment", deployment)["spec"]["template"]
    }
}

/// The members of an array.
#[track_caller]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not an array: {value}"))
}

/// A text.
#[track_caller]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// A number.
#[track_caller]
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// A container of a Pod.
#[track_caller]
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let containers = list(&pod["spec"]["containers"]);
    containers.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no container {name}"))
}

/// The number of a port of a container, which may be named.
#[track_caller]
pub fn port(container: &Value, port: &Value) -> u16 {
    let number = match port.as_u64() {
        Some(number) => number,
        None => {
            let ports = list(&container["ports"]);
            let named = ports.iter().find(|it| it["name"] == *port);
            number(
                &named.unwrap_or_else(|| panic!("no port {port} in {container}"))["containerPort"],
            )
        }
    };
    number.try_into().expect("a port")
}
