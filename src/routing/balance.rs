//! Which worker gets a new client.
//!
//! The kernel deals new connections to the workers by a hash, which knows nothing of how many each
//! of them has. Where clients stay for long, as the connections of a proxy in front do, a worker may
//! end up with most of them. So the worker that has accepted a connection compares its load with
//! that of one other worker, each time another, and may leave the connection to it. To look at two
//! is nearly as good as to look at all (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", 2001), and costs the same for any number of workers.
//!
//! A move costs a message and may wake a thread. Short connections are dealt evenly by the hash
//! alone, so differences that come by chance are left as they are.

/// The difference in clients below which none moves.
pub const LEAST: u64 = 4;

/// A client moves if its worker has more than the other by more than one in so many.
pub const SHARE: u64 = 4;

/// One worker's choices.
#[derive(Debug, Default)]
pub struct Balance {
    /// How many times it has looked at another worker.
    looks: usize,
}

impl Balance {
    /// The worker, one of `workers`, that gets a client which `own` has accepted. `load` says how
    /// many clients a worker has; the new one is not counted yet.
    pub fn place(&mut self, own: usize, workers: usize, load: impl Fn(usize) -> u64) -> usize {
        // With hardly any clients no other worker's counts are read.
        if workers < 2 || load(own) < LEAST {
            return own;
        }
        let other = self.next_other(own, workers);
        if is_worth_it(load(own), load(other)) { other } else { own }
    }

    /// The workers take turns.
    fn next_other(&mut self, own: usize, workers: usize) -> usize {
        self.looks = self.looks.wrapping_add(1);
        (own + 1 + self.looks % (workers - 1)) % workers
    }
}

/// Whether a client is to go from a worker with so many to one with so many.
fn is_worth_it(own: u64, other: u64) -> bool {
    own >= other + LEAST && own > other + other / SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rule makes of these loads.
    fn place(own: usize, loads: &[u64]) -> usize {
        Balance::default().place(own, loads.len(), |worker| loads[worker])
    }

    #[test]
    fn a_client_moves_only_if_the_difference_is_worth_it() {
        assert_eq!(place(0, &[1_000_000]), 0);
        // Not for three.
        assert_eq!((place(0, &[3, 0]), place(0, &[4, 0])), (0, 1));
        assert_eq!((place(1, &[7, 10]), place(1, &[7, 11])), (1, 0));
        // Not for a quarter.
        assert_eq!((place(0, &[100, 80]), place(0, &[101, 80])), (0, 1));
        assert_eq!((place(1, &[1000, 1250]), place(1, &[1000, 1251])), (1, 0));
        assert_eq!(place(0, &[0, 100]), 0);
    }

    #[test]
    fn each_other_worker_has_its_turn() {
        let mut balance = Balance::default();
        let loads = [0, 0, 9, 0];
        let places: Vec<usize> =
            (0..6).map(|_| balance.place(2, 4, |worker| loads[worker])).collect();
        assert_eq!(places, [0, 1, 3, 0, 1, 3]);
    }

    /// One worker's load is not asked for while it has hardly any clients: the counters of others
    /// are in their caches.
    #[test]
    fn an_idle_worker_looks_at_nobody() {
        let mut balance = Balance::default();
        let own_only =
            |worker| if worker == 1 { LEAST - 1 } else { panic!("it looks at {worker}") };
        assert_eq!(balance.place(1, 3, own_only), 1);
    }

    /// Workers and their clients, as a seed has it.
    struct World {
        random: u64,
        balances: Vec<Balance>,
        loads: Vec<u64>,
        /// The worker of each client.
        clients: Vec<usize>,
        moved: usize,
    }

    impl World {
        fn new(workers: usize, seed: u64) -> World {
            World {
                random: 0x9E37_79B9_7F4A_7C15 ^ seed,
                balances: (0..workers).map(|_| Balance::default()).collect(),
                loads: vec![0; workers],
                clients: Vec::new(),
                moved: 0,
            }
        }

        fn below(&mut self, bound: usize) -> usize {
            // xorshift64*
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
        }

        /// The kernel has dealt a client to `worker`.
        fn connect(&mut self, worker: usize) {
            let loads = &self.loads;
            let place = self.balances[worker].place(worker, loads.len(), |worker| loads[worker]);
            self.moved += usize::from(place != worker);
            self.loads[place] += 1;
            self.clients.push(place);
        }

        /// A client leaves, one of `worker` if that is given.
        fn leave(&mut self, worker: Option<usize>) {
            let from = self.below(self.clients.len());
            let order = (from..self.clients.len()).chain(0..from);
            let is_one = |at: &usize| worker.is_none_or(|worker| self.clients[*at] == worker);
            if let Some(at) = order.into_iter().find(is_one) {
                self.loads[self.clients.swap_remove(at)] -= 1;
            }
        }

        /// Fails if the worker with most clients has more than the rule allows, which is reached
        /// when it has looked at all others.
        #[track_caller]
        fn assert_even(&self) {
            let (least, most) =
                (self.loads.iter().min().unwrap(), self.loads.iter().max().unwrap());
            let bound = (least + least / SHARE).max(least + LEAST) + 1;
            assert!(*most <= bound, "{:?}", self.loads);
        }
    }

    const WORKERS: [usize; 5] = [2, 3, 4, 8, 64];

    #[test]
    fn clients_that_all_come_to_one_worker_end_up_evenly() {
        for workers in WORKERS {
            let mut world = World::new(workers, 1);
            (0..100 * workers).for_each(|_| world.connect(workers - 1));
            world.assert_even();
        }
    }

    #[test]
    fn half_of_all_clients_on_one_worker_are_shared_out() {
        for workers in WORKERS {
            let mut world = World::new(workers, 2);
            for _ in 0..64 * workers {
                let hashed = world.below(2 * workers);
                world.connect(if hashed < workers { hashed } else { 0 });
            }
            let most = *world.loads.iter().max().unwrap();
            assert!(most <= 64 * 3 / 2, "{workers}: {:?}", world.loads);
        }
    }

    /// A worker loses all its clients, and gets the next that come, wherever they come.
    #[test]
    fn workers_that_clients_have_left_are_filled_again() {
        for workers in WORKERS {
            let mut world = World::new(workers, 3);
            (0..50 * workers).for_each(|client| world.connect(client % workers));
            while world.loads[0] > 0 {
                world.leave(Some(0));
            }
            for _ in 0..100 * workers {
                let hashed = 1 + world.below(workers - 1);
                world.connect(hashed);
                world.leave(None);
            }
            // Others come and go meanwhile.
            let mean = world.clients.len() as u64 / workers as u64;
            assert!(world.loads[0] >= mean * 2 / 3, "{workers}: {:?}", world.loads);
        }
    }

    /// Where the hash deals evenly and clients do not stay, few of them move.
    #[test]
    fn short_connections_stay_where_the_hash_has_dealt_them() {
        for workers in WORKERS {
            for each in [1, 4, 16, 64, 256] {
                let mut world = World::new(workers, 4);
                let connections = 1000 * workers.max(each);
                for _ in 0..connections {
                    let hashed = world.below(workers);
                    world.connect(hashed);
                    if world.clients.len() > each * workers {
                        world.leave(None);
                    }
                }
                let share = world.moved * 100 / connections;
                assert!(share <= 13, "{workers} workers with {each} clients: {share} % moved");
            }
        }
    }
}
