//! Where the proxy listens, and for whom: opened at the start, and opened and closed when the settings are read again.
//!
//! A gate is one address of the settings, with a socket for each worker (and for each address behind a name). The main
//! thread opens all of them before anything changes, so that what cannot be had changes nothing.

use std::sync::Arc;

use crate::config::{Address, Serves, Settings};
use crate::net::listener::{self, Listener};

use super::sites::{Inlet, Sites};
use super::start::socket_options;

/// Whom a listener is for.
#[derive(Clone)]
pub enum Purpose {
    /// Clients and bridges, as its `listen` line says.
    Listen(Serves),
    /// The swiftclient backends of a site.
    Inlet(Arc<Inlet>),
}

impl Purpose {
    fn is(&self, other: &Purpose) -> bool {
        match (self, other) {
            (Purpose::Listen(one), Purpose::Listen(other)) => one == other,
            (Purpose::Inlet(one), Purpose::Inlet(other)) => one.site == other.site,
            _ => false,
        }
    }

    fn whom(&self) -> String {
        match self {
            Purpose::Listen(Serves::Both) => "clients and bridges".to_owned(),
            Purpose::Listen(Serves::Clients) => "clients".to_owned(),
            Purpose::Listen(Serves::Bridges) => "bridges".to_owned(),
            Purpose::Inlet(inlet) => format!("swiftclient backends of {}", inlet.site),
        }
    }
}

/// An address that is listened on.
struct Gate {
    address: Address,
    /// Never used again for another.
    id: u64,
    /// The sockets' own addresses, for the log.
    shown: Vec<String>,
    purpose: Purpose,
}

/// Every gate of the process, as the main thread knows them.
#[derive(Default)]
pub struct Gates {
    open: Vec<Gate>,
    last_id: u64,
}

/// What a worker has to listen on from now on.
#[derive(Clone, Default)]
pub struct Doorways {
    /// Every gate that is open, by its id; others are to be closed.
    pub purposes: Vec<(u64, Purpose)>,
}

/// New listeners of one worker, each with its gate's id.
pub type Opened = Vec<(Listener, u64)>;

/// A change of gates that can be had: all its sockets are open.
pub struct Change {
    gates: Gates,
    opened: Vec<Opened>,
}

impl Gates {
    /// Opens what `settings` and `sites` name and is not open yet, for so many workers. Nothing is closed, and these
    /// gates stay what they are until [`Gates::commit`].
    ///
    /// # Errors
    /// One sentence about an address that cannot be listened on. Then nothing has been opened.
    pub fn prepare(
        &self,
        settings: &Settings,
        sites: &Sites,
        workers: usize,
    ) -> Result<Change, String> {
        let listens = settings.listen.iter().map(|l| (&l.address, Purpose::Listen(l.serves)));
        let inlets = sites.inlets().map(|(address, i)| (address, Purpose::Inlet(Arc::clone(i))));
        let mut left: Vec<&Gate> = self.open.iter().collect();
        let mut gates = Gates { open: Vec::new(), last_id: self.last_id };
        let mut opened: Vec<Opened> = (0..workers).map(|_| Vec::new()).collect();
        for (address, purpose) in listens.chain(inlets) {
            // The kernel has chosen a port for each line with port 0: only the same one keeps it.
            let known = left.iter().position(|gate| {
                gate.address == *address && (address.port() != 0 || gate.purpose.is(&purpose))
            });
            let gate = match known.map(|at| left.remove(at)) {
                Some(gate) => Gate {
                    address: address.clone(),
                    id: gate.id,
                    shown: gate.shown.clone(),
                    purpose,
                },
                None => {
                    gates.last_id += 1;
                    let id = gates.last_id;
                    let shown = open(address, id, settings, &mut opened)
                        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
                    Gate { address: address.clone(), id, shown, purpose }
                }
            };
            gates.open.push(gate);
        }
        Ok(Change { gates, opened })
    }

    /// Puts a change in force: says in the log what has changed, and gives each worker its new listeners.
    pub fn commit(&mut self, change: Change) -> Vec<Opened> {
        let old = std::mem::replace(self, change.gates);
        for gate in &self.open {
            let whom = gate.purpose.whom();
            let before = old.open.iter().find(|known| known.id == gate.id);
            if before.is_none_or(|known| known.purpose.whom() != whom) {
                gate.shown.iter().for_each(|shown| log::info!("listening on {shown} ({whom})"));
            }
        }
        for gate in old.open.iter().filter(|gate| !self.open.iter().any(|new| new.id == gate.id)) {
            gate.shown.iter().for_each(|shown| log::info!("no longer listening on {shown}"));
        }
        change.opened
    }

    /// What every worker has to know.
    #[must_use]
    pub fn doorways(&self) -> Doorways {
        Doorways {
            purposes: self.open.iter().map(|gate| (gate.id, gate.purpose.clone())).collect(),
        }
    }
}

impl Doorways {
    /// Whom the gate with this id is for; `None` if it is to be closed.
    #[must_use]
    pub fn purpose(&self, gate: u64) -> Option<&Purpose> {
        self.purposes.iter().find(|(id, _)| *id == gate).map(|(_, purpose)| purpose)
    }
}

/// Opens `address` once per worker; gives each worker its own. Returns the sockets' addresses.
fn open(
    address: &Address,
    id: u64,
    settings: &Settings,
    workers: &mut [Opened],
) -> std::io::Result<Vec<String>> {
    let options = socket_options(settings);
    let mut shown = Vec::new();
    for socket in address.resolve()? {
        let listeners = listener::open(socket, workers.len(), &options)?;
        shown.extend(listeners.first().map(|first| first.address().to_string()));
        for (worker, listener) in workers.iter_mut().zip(listeners) {
            worker.push((listener, id));
        }
    }
    Ok(shown)
}
