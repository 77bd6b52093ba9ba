use super::*;
use crate::config::{TABLE, read};
use std::net::Ipv4Addr;
use std::path::Path;

struct World {
    directory: Directory<()>,
    pools: Pools<()>,
    /// What Redis has named.
    named: NamedServers,
}

impl World {
    fn new() -> World {
        World {
            directory: Directory::new(2),
            pools: Pools::default(),
            named: NamedServers::default(),
        }
    }

    fn set(&mut self, lines: &str) {
        let mut settings = Settings::default();
        assert_eq!(read(TABLE, Path::new("f"), lines.as_bytes(), &mut settings), []);
        let specs: Vec<RouteSpec> =
            settings.site.iter().map(|site| RouteSpec::new(&site.names, "")).collect();
        self.directory.pin(&specs, Micros(0));
        self.pools = Pools::new(&settings, &self.named, &self.directory, &self.pools, Micros(0));
    }

    fn servers(&self) -> Vec<Arc<Server<()>>> {
        self.pools.servers().cloned().collect()
    }

    fn members(&self, name: &str) -> u32 {
        self.directory.route(&RouteSpec::new([name], "")).unwrap().members()
    }
}

/// The peer of a server without addresses.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

#[test]
fn connections_are_dealt_out_up_to_the_bound() {
    let mut world = World::new();
    world.set("site a servers=127.0.0.1:1,127.0.0.1:2 max=2\n");
    let pool = &world.pools.list()[0];
    let lines: Vec<_> = std::iter::from_fn(|| pool.choose(Millis(0))).collect();
    assert_eq!(lines.len(), 4);
    let open: Vec<u32> = world.servers().iter().map(|server| server.open()).collect();
    assert_eq!(open, [2, 2]);
    drop(lines);
    assert!(world.servers().iter().all(|server| server.open() == 0));
}

#[test]
fn a_server_that_fails_is_not_chosen_and_does_not_make_its_site_served() {
    let mut world = World::new();
    world.set("site a servers=127.0.0.1:1,127.0.0.1:2\n");
    assert_eq!(world.members("a"), 2);
    let [first, second] = &world.servers()[..] else { panic!("not two") };
    first.failed(Purpose::Requests, &refused(), Micros(1_000_000));
    assert_eq!(world.members("a"), 1);
    assert!(world.pools.common.any_down());
    for _ in 0..3 {
        assert_eq!(world.pools.list()[0].choose(Millis(0)).unwrap().server.to, second.to);
    }
    second.failed(Purpose::Requests, &refused(), Micros(1_000_000));
    assert!(world.pools.list()[0].choose(Millis(0)).is_none());
    assert_eq!(world.members("a"), 0);
    assert!(!first.begin_probe(Micros(1_050_000)) && first.begin_probe(Micros(1_100_000)));
    first.answered(NOWHERE, Micros(0));
    assert_eq!(world.pools.list()[0].choose(Millis(0)).unwrap().server.to, first.to);
    assert_eq!(world.members("a"), 1);
}

#[test]
fn a_reload_keeps_unchanged_servers_and_drops_the_rest() {
    let mut world = World::new();
    world.set("site a servers=127.0.0.1:1,127.0.0.1:2 max=1\nsite b servers=127.0.0.1:1\n");
    let before = world.servers();
    let line = before[0].permit().unwrap();
    before[1].failed(Purpose::Requests, &refused(), Micros(0));
    before[2].failed(Purpose::Requests, &refused(), Micros(0));
    world.set("site a servers=127.0.0.1:1,127.0.0.1:3 max=2\nsite b servers=127.0.0.1:1\n");
    let after = world.servers();
    assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[2], &after[2]));
    assert_eq!(after[0].open(), 1);
    let gone: Vec<bool> = before.iter().map(|server| server.is_removed()).collect();
    assert_eq!(gone, [false, true, false]);
    assert_eq!(world.members("a"), 2);
    // What is said of one that has gone changes nothing any more.
    before[1].answered(NOWHERE, Micros(0));
    assert_eq!((world.members("a"), world.members("b")), (2, 0));
    assert_eq!(world.pools.common.down.load(Ordering::Relaxed), 1);
    drop(line);
    world.set("site a\nsite b\n");
    assert_eq!((world.members("a"), world.members("b")), (0, 0));
    assert!(!world.pools.common.any_down());
}

#[test]
fn a_server_that_comes_back_is_the_same_one_while_it_has_connections() {
    let mut world = World::new();
    world.set("site a servers=127.0.0.1:1,127.0.0.1:2 max=1\n");
    let before = world.servers();
    let lines = [before[0].permit().unwrap(), before[1].permit().unwrap()];
    before[1].failed(Purpose::Requests, &refused(), Micros(0));
    assert!(before[1].begin_probe(Micros(100_000)));
    world.set("site a\n");
    assert_eq!(world.members("a"), 0);
    world.set("site a servers=127.0.0.1:1,127.0.0.1:2 max=1\n");
    let after = world.servers();
    assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[1], &after[1]));
    assert!(after[0].permit().is_none() && !after[0].is_removed());
    assert_eq!(world.members("a"), 1);
    assert_eq!(world.pools.common.down.load(Ordering::Relaxed), 1);
    assert!(after[1].begin_probe(Micros(100_000)), "nobody waits for the probe that was given up");
    drop(lines);
    world.set("site a\n");
    assert_eq!(world.members("a"), 0);
    assert!(!world.pools.common.any_down());
}

#[test]
fn servers_that_redis_names_come_and_go() {
    const LINE: &str = "site a servers=127.0.0.1:1,redis://h/k max=2\n";
    let mut world = World::new();
    world.set(LINE);
    let most = |world: &World| {
        let servers = world.servers();
        let most = servers.iter().map(|server| (server.to.to_string(), server.most().unwrap()));
        most.collect::<Vec<_>>()
    };
    assert_eq!(most(&world), [("127.0.0.1:1".to_owned(), 2)]);
    let server = |word| SiteServer::named_by_redis(word).unwrap();
    let list = crate::config::RedisList::parse("redis://h/k").unwrap();
    world.named.put(&list, &["127.0.0.1:3", "127.0.0.1:2", "127.0.0.1:3"].map(server));
    world.set(LINE);
    let expected = [("127.0.0.1:1", 2), ("127.0.0.1:3", 4), ("127.0.0.1:2", 2)];
    assert_eq!(most(&world), expected.map(|(name, most)| (name.to_owned(), most)));
    assert_eq!(world.members("a"), 3);
    let kept = Arc::clone(&world.servers()[2]);
    let gone = Arc::clone(&world.servers()[1]);
    world.named.put(&list, &[server("127.0.0.1:2")]);
    world.set(LINE);
    assert!(Arc::ptr_eq(&kept, &world.servers()[1]) && gone.is_removed());
    assert_eq!(world.members("a"), 2);
}

#[test]
fn a_site_may_wait_for_redis_to_name_its_servers() {
    let mut world = World::new();
    world.set("site a servers=redis://h/k max=2\n");
    assert_eq!((world.pools.list().len(), world.servers().len()), (1, 0));
    assert!(world.pools.list()[0].choose(Millis(0)).is_none());
    assert_eq!(world.members("a"), 0);
}
