//! What the programs that have been replaced still have. The old one says it to the new one, and
//! passes on what it hears itself from one that is older still.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::BackendToken;
use crate::routing::{Directory, Exempt, Route, RouteSpec};
use crate::time::{Micros, Millis};

/// How often an old program looks whether there is something to say. Each look is at all routes.
const INTERVAL: Duration = Duration::from_millis(250);

/// A program that has been replaced, and what it still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct OldProgram {
    pub(in crate::proxy) process: u32,
    pub(in crate::proxy) tunnels: u64,
    /// Requests and their responses.
    pub(in crate::proxy) exchanges: u64,
    /// Both ends of these, and whatever else is open.
    pub(in crate::proxy) connections: u64,
}

impl OldProgram {
    pub(in crate::proxy) fn to_json(self) -> Value {
        json!({
            "process": self.process,
            "tunnels": self.tunnels,
            "exchanges": self.exchanges,
            "connections": self.connections,
        })
    }

    fn read(line: &Value) -> Option<OldProgram> {
        let number = |name: &str| line[name].as_u64();
        Some(OldProgram {
            process: number("process")?.try_into().ok()?,
            tunnels: number("tunnels")?,
            exchanges: number("exchanges")?,
            connections: number("connections")?,
        })
    }
}

/// The programs that this one has replaced and that still run.
#[derive(Default)]
pub(in crate::proxy) struct OldPrograms(Mutex<Vec<OldProgram>>);

impl OldPrograms {
    /// The last that was replaced is the first.
    pub(in crate::proxy) fn all(&self) -> Vec<OldProgram> {
        self.lock().clone()
    }

    /// Takes what the last one says of itself and of those before it.
    pub(in crate::proxy) fn hear(&self, line: &Value) {
        let programs = line["programs"].as_array().into_iter().flatten();
        *self.lock() = programs.filter_map(OldProgram::read).collect();
    }

    /// They have ended.
    pub(in crate::proxy) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OldProgram>> {
        // Each change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bridges of a route that have something in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Busy {
    pub(in crate::proxy) bridges: u32,
    /// How many of them are of backends that say how many places they have, for each such backend.
    pub(in crate::proxy) of: Vec<(BackendToken, u32)>,
}

/// Routes whose bridges have something in progress.
#[derive(Default)]
pub(in crate::proxy) struct BusyRoutes(HashMap<RouteSpec, Busy>);

impl FromIterator<(RouteSpec, Busy)> for BusyRoutes {
    fn from_iter<I: IntoIterator<Item = (RouteSpec, Busy)>>(all: I) -> BusyRoutes {
        BusyRoutes(all.into_iter().filter(|(_, busy)| busy.bridges > 0).collect())
    }
}

impl BusyRoutes {
    pub(in crate::proxy) fn of(&self, spec: &RouteSpec) -> Busy {
        self.0.get(spec).cloned().unwrap_or_default()
    }
}

/// In an old program: what it has said of itself.
#[derive(Default)]
pub(in crate::proxy) struct Report {
    next: Millis,
    programs: Vec<OldProgram>,
    busy: BusyRoutes,
}

impl Report {
    pub(in crate::proxy) fn is_due(&self, now: Millis) -> bool {
        now >= self.next
    }

    /// Notes that a look has been taken.
    pub(in crate::proxy) fn looked(&mut self, now: Millis) {
        self.next = now + INTERVAL;
    }

    /// The message that is to be sent, if these are not what was said last.
    pub(in crate::proxy) fn programs(&self, programs: &[OldProgram]) -> Option<String> {
        if self.programs == programs {
            return None;
        }
        let programs: Vec<Value> = programs.iter().map(|program| program.to_json()).collect();
        Some(json!({ "kind": "programs", "programs": programs }).to_string())
    }

    pub(in crate::proxy) fn said_programs(&mut self, programs: Vec<OldProgram>) {
        self.programs = programs;
    }

    /// What has changed since it was said: each route that has, with its busy bridges now.
    pub(in crate::proxy) fn changes(&self, all: &BusyRoutes) -> Vec<(RouteSpec, Busy)> {
        let new = all.0.iter().filter(|(spec, busy)| self.busy.0.get(spec) != Some(*busy));
        let new = new.map(|(spec, busy)| (spec.clone(), busy.clone()));
        let gone = self.busy.0.keys().filter(|spec| !all.0.contains_key(spec));
        new.chain(gone.map(|spec| (spec.clone(), Busy::default()))).collect()
    }

    pub(in crate::proxy) fn said_busy(&mut self, spec: RouteSpec, busy: Busy) {
        match busy.bridges {
            0 => _ = self.busy.0.remove(&spec),
            _ => _ = self.busy.0.insert(spec, busy),
        }
    }
}

/// In the new program: members of routes, in place of the bridges that are busy in old ones. So
/// their hosts are known, and count as served.
pub(in crate::proxy) struct Absent<B> {
    routes: HashMap<RouteSpec, Members<B>>,
}

struct Members<B> {
    route: Arc<Route<B>>,
    members: Vec<Exempt<B>>,
}

impl<B> Default for Absent<B> {
    fn default() -> Self {
        Absent { routes: HashMap::new() }
    }
}

impl<B> Absent<B> {
    /// So many bridges of this route are busy elsewhere. True if the route is new here.
    pub(in crate::proxy) fn set(
        &mut self,
        directory: &Directory<B>,
        spec: RouteSpec,
        busy: u32,
        now: Micros,
    ) -> bool {
        let busy = busy as usize;
        let mut is_new = false;
        if busy > 0 && !self.routes.contains_key(&spec) {
            let (route, member, new) = directory.join_exempt(&spec, now);
            is_new = new;
            self.routes.insert(spec.clone(), Members { route, members: vec![member] });
        }
        let Some(Members { route, members }) = self.routes.get_mut(&spec) else {
            return is_new;
        };
        while members.len() < busy {
            members.push(route.join_exempt());
        }
        for member in members.drain(busy..) {
            route.leave(now);
            drop(member);
        }
        if busy == 0 {
            self.routes.remove(&spec);
        }
        is_new
    }

    /// None is busy elsewhere any longer.
    pub(in crate::proxy) fn clear(&mut self, directory: &Directory<B>, now: Micros) {
        let specs: Vec<RouteSpec> = self.routes.keys().cloned().collect();
        specs.into_iter().for_each(|spec| _ = self.set(directory, spec, 0, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_heard_as_they_are_said_and_said_when_they_change() {
        let [one, two] = [(7, 1), (8, 2)].map(|(process, tunnels)| OldProgram {
            process,
            tunnels,
            exchanges: 3,
            connections: 9,
        });
        let (mut report, heard) = (Report::default(), OldPrograms::default());
        assert!(report.programs(&[]).is_none());
        let line = report.programs(&[one, two]).unwrap();
        heard.hear(&serde_json::from_str(&line).unwrap());
        assert_eq!(heard.all(), [one, two]);
        report.said_programs(vec![one, two]);
        assert!(report.programs(&[one, two]).is_none() && report.programs(&[two]).is_some());
        heard.clear();
        assert!(heard.all().is_empty());
    }

    #[test]
    fn only_what_changes_of_a_route_is_said() {
        let [one, two] = ["a", "b"].map(|host| RouteSpec::new([host], ""));
        let busy = |bridges| Busy { bridges, of: Vec::new() };
        let mut report = Report::default();
        let all = BusyRoutes::from_iter([(one.clone(), busy(2)), (two.clone(), busy(0))]);
        assert_eq!(report.changes(&all), [(one.clone(), busy(2))]);
        report.said_busy(one.clone(), busy(2));
        assert!(report.changes(&all).is_empty());
        // Others of another backend: as many on the route.
        let of = Busy { of: vec![(BackendToken::new([7; 16]), 1)], ..busy(2) };
        let all = BusyRoutes::from_iter([(one.clone(), of.clone())]);
        assert_eq!(report.changes(&all), [(one.clone(), of)]);
        let mut changes = report.changes(&BusyRoutes::from_iter([(two.clone(), busy(1))]));
        changes.sort_by_key(|(_, busy)| busy.bridges);
        assert_eq!(changes, [(one.clone(), busy(0)), (two, busy(1))]);
        report.said_busy(one, busy(0));
        assert!(report.changes(&BusyRoutes::default()).is_empty());
    }

    #[test]
    fn bridges_that_are_busy_elsewhere_are_members_that_no_bound_counts() {
        let directory = Directory::<u8>::new(1);
        let (mut absent, spec) = (Absent::default(), RouteSpec::new(["a"], ""));
        assert!(absent.set(&directory, spec.clone(), 2, Micros(0)));
        let route = directory.route(&spec).unwrap();
        assert_eq!((route.members(), route.counted()), (2, 0));
        assert!(!absent.set(&directory, spec.clone(), 1, Micros(1)));
        assert_eq!((route.members(), route.counted()), (1, 0));
        assert!(!absent.set(&directory, spec.clone(), 3, Micros(1)));
        absent.clear(&directory, Micros(2));
        assert_eq!((route.members(), route.counted()), (0, 0));
        assert!(!absent.set(&directory, spec, 0, Micros(3)) && absent.routes.is_empty());
    }
}
