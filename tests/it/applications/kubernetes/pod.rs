//! A Pod: a network of its own, and in it containers with what their manifest says of files, user and
//! rights. The images are this machine, with the programs under test.

use super::manifests::{container, list, number, port, text};
use crate::common::{DEADLINE, Process, eventually};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running Pod. It is killed when this is dropped.
pub struct Pod {
    pub address: Ipv4Addr,
    template: Value,
    /// It holds the network open.
    holder: Child,
    containers: Vec<(String, Process)>,
}

/// What the files of a volume are: names and contents.
pub type Files = Vec<(String, String)>;

impl Pod {
    /// Starts one, with this address in the network `cluster`. `folder` is for its files, which must
    /// be in `etc` there already but for the volumes, whose files `files_of` tells.
    #[track_caller]
    pub fn start(
        template: &Value,
        address: Ipv4Addr,
        folder: &Path,
        files_of: impl Fn(&Value) -> Option<Files>,
    ) -> Pod {
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn();
        let holder = holder.expect("unshare");
        let spec = &template["spec"];
        let mut pod = Pod { address, template: template.clone(), holder, containers: Vec::new() };
        pod.join_network();
        for volume in list(&spec["volumes"]) {
            if let Some(files) = files_of(volume) {
                write_volume(&folder.join(text(&volume["name"])), &files);
            }
        }
        for container in list(&spec["containers"]) {
            let process = pod.run(container, folder);
            pod.containers.push((text(&container["name"]).to_owned(), process));
        }
        pod
    }

    #[track_caller]
    fn join_network(&self) {
        let (address, id) = (self.address, self.holder.id());
        let network = format!("/proc/{id}/ns/net");
        let own = fs::read_link("/proc/self/ns/net").expect("/proc");
        eventually("the network of the Pod is there", || {
            fs::read_link(&network).is_ok_and(|other| other != own)
        });
        let near = format!("pod{}", address.octets()[3]);
        super::super::network::run(&format!(
            "ip link add {near} type veth peer name eth0 netns {id}
             ip link set {near} master cluster up
             nsenter --net={network} sh -ec '
                ip link set lo up
                ip addr add {address}/24 dev eth0
                ip link set eth0 up'"
        ));
    }

    /// Starts a container.
    #[track_caller]
    fn run(&self, container: &Value, folder: &Path) -> Process {
        let script = self.prepare(container, folder);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command.args(["unshare", "--mount", "sh", "-ec", &script, "sh"]);
        command.args(list(&container["command"]).iter().map(text)).stdin(Stdio::null());
        Process::spawn("a container", &mut command)
    }

    /// The line of shell that makes a container of a process, which stays the same one.
    #[track_caller]
    fn prepare(&self, container: &Value, folder: &Path) -> String {
        let (spec, folder) = (&self.template["spec"], folder.display());
        let user = &spec["securityContext"];
        assert_eq!(user["runAsNonRoot"], true, "the test runs no container as root");
        let id = |name: &str| number(&user[name]);
        let group = id("fsGroup");
        let mut script = String::from("mount -t tmpfs tmpfs /usr/local/bin\n");
        for program in [env!("CARGO_BIN_EXE_cloudbridge"), env!("CARGO_BIN_EXE_cloudbridge-agent")]
        {
            let name = Path::new(program).file_name().expect("a name").to_string_lossy();
            let _ = writeln!(
                script,
                "touch /usr/local/bin/{name}; mount --bind {program} /usr/local/bin/{name}"
            );
        }
        let _ = write!(
            script,
            "mount -t tmpfs tmpfs /run\nmount -t tmpfs tmpfs /etc\ncp {folder}/etc/* /etc\n"
        );
        for mount in list(&container["volumeMounts"]) {
            let volumes = list(&spec["volumes"]);
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            let volume = volume.unwrap_or_else(|| panic!("no volume {}", mount["name"]));
            let (path, name) = (text(&mount["mountPath"]), text(&mount["name"]));
            // What the kubelet does with fsGroup.
            let _ = writeln!(
                script,
                "mkdir -p {path}; mount -t tmpfs -o mode=2777,gid={group} tmpfs {path}"
            );
            if volume["emptyDir"].is_null() {
                let mode = volume["secret"]["defaultMode"].as_u64().unwrap_or(0o644);
                let _ = writeln!(
                    script,
                    "cp -RP {folder}/{name}/. {path}; chgrp -RP {group} {path}/.
                     find {path} -type f -exec chmod {mode:o} '{{}}' +"
                );
            }
            if mount["readOnly"] == true {
                let _ = writeln!(script, "mount -o remount,ro {path}");
            }
        }
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        let _ = write!(
            script,
            "mount -o remount,ro /etc; mount -o remount,bind,ro /\n\
             exec setpriv --reuid {} --regid {} --groups {group} --bounding-set -all \
             --inh-caps -all --ambient-caps -all --no-new-privs \
             env -i PATH=/usr/local/bin:/usr/bin:/bin \"$@\"\n",
            id("runAsUser"),
            id("runAsGroup"),
        );
        script
    }

    /// A container's process.
    #[track_caller]
    pub fn process(&mut self, name: &str) -> &mut Process {
        let found = self.containers.iter_mut().find(|(have, _)| have == name);
        &mut found.unwrap_or_else(|| panic!("no container {name}")).1
    }

    /// Whether the readiness probe of this container succeeds.
    #[track_caller]
    pub fn is_ready(&self, name: &str) -> bool {
        let container = container(&self.template, name);
        let probe = &container["readinessProbe"]["httpGet"];
        let address = (self.address, port(container, &probe["port"])).into();
        let answer = get(address, &self.address.to_string(), text(&probe["path"]));
        // A kubelet takes every status from 200 to 399.
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    /// Where a port of one of its containers is.
    #[track_caller]
    pub fn at(&self, name: &str, named: &str) -> SocketAddr {
        let container = container(&self.template, name);
        (self.address, port(container, &Value::from(named))).into()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The whole answer to a GET, if there is one.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Writes the files of a volume as the kubelet does: each is a link into a folder that is a link, so
/// that all of them change at once.
#[track_caller]
fn write_volume(folder: &Path, files: &Files) {
    let data: PathBuf = folder.join("..2026_11_26");
    fs::create_dir_all(&data).expect("a folder of the test");
    symlink("..2026_11_26", folder.join("..data")).expect("a link");
    for (name, contents) in files {
        fs::write(data.join(name), contents).expect("a file of the test");
        symlink(format!("..data/{name}"), folder.join(name)).expect("a link");
    }
}
