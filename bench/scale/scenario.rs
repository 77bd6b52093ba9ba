//! Who asks whom for what.

/// Where a client's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Every request to a route at random, as those of haproxy's connections do.
    Anywhere,
    /// All requests of a connection to one route, as a browser's are.
    OneRoute,
}

/// A number of connections.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// So many for each worker.
    PerWorker(usize),
    /// So many, whatever the number of workers.
    InAll(usize),
}

impl Count {
    /// How many that is.
    pub fn of(self, workers: usize) -> usize {
        match self {
            Count::PerWorker(count) => count * workers,
            Count::InAll(count) => count,
        }
    }
}

/// A load. Each client sends its next request when it has the answer to the last.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the table is called.
    pub name: &'static str,
    /// One sentence on it.
    pub story: &'static str,
    /// Client connections.
    pub clients: Count,
    /// Of a hundred clients, how many are dealt to worker 0 whatever the kernel's hash says.
    pub hot: u64,
    /// A worker that has more clients than another leaves new ones to it, as the proxy's do.
    pub balanced: bool,
    /// Routes, each with a host of its own.
    pub routes: usize,
    /// Bridges, dealt to the routes in turn.
    pub bridges: Count,
    /// Where requests go.
    pub aim: Aim,
}

impl Scenario {
    /// Those of the main tables.
    pub fn all() -> Vec<Scenario> {
        let even = Scenario {
            name: "Even load",
            story: "64 clients and 64 bridges of one route for each worker, on workers as the kernel's hash deals them.",
            clients: Count::PerWorker(64),
            hot: 0,
            balanced: false,
            routes: 1,
            bridges: Count::PerWorker(64),
            aim: Aim::Anywhere,
        };
        vec![
            even.clone(),
            Scenario {
                name: "One hot worker",
                story: "The same, but half of all clients are on worker 0.",
                hot: 50,
                ..even.clone()
            },
            Scenario {
                name: "One hot worker that leaves clients to others",
                story: "The kernel deals half of all clients to worker 0, which compares its load with another's.",
                hot: 50,
                balanced: true,
                ..even.clone()
            },
            Scenario {
                name: "One hot route",
                story: "64 clients for each worker, all of one route, which has 8 bridges for each worker: barely enough.",
                bridges: Count::PerWorker(8),
                ..even.clone()
            },
            Scenario {
                name: "512 clients on 16 bridges",
                story: "However many workers there are.",
                clients: Count::InAll(512),
                bridges: Count::InAll(16),
                ..even.clone()
            },
            Scenario {
                name: "10,000 routes, requests at random",
                story: "64 clients for each worker; two bridges for each route; every request for another host.",
                routes: 10_000,
                bridges: Count::InAll(20_000),
                ..even.clone()
            },
            Scenario {
                name: "10,000 routes, a client keeps to one",
                story: "The same, but each connection asks for one host only.",
                routes: 10_000,
                bridges: Count::InAll(20_000),
                aim: Aim::OneRoute,
                ..even
            },
        ]
    }

    /// 100 routes with `bridges` bridges each.
    pub fn spread(bridges: usize) -> Scenario {
        Scenario {
            name: "Spread",
            story: "",
            clients: Count::PerWorker(64),
            hot: 0,
            balanced: false,
            routes: 100,
            bridges: Count::InAll(100 * bridges),
            aim: Aim::Anywhere,
        }
    }
}
