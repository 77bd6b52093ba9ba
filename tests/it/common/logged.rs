//! What the programs log about events that tests wait for.

/// The proxy stops accepting for want of room.
pub const ACCEPTING_PAUSES: &str = "accepting pauses";

/// The proxy has obeyed a SIGHUP.
pub const READ_AGAIN: &str = "settings and secrets have been read again";

/// A SIGHUP with nothing new in the files.
pub const NOTHING_CHANGED: &str = "nothing has changed";

/// A SIGHUP with another `site` line; the setting's name is behind the colon.
pub const SITE_CHANGED: &str = "changed: site";

/// A proxy or an agent has taken SIGTERM.
pub const SHUTTING_DOWN: &str = "shutting down";

/// The agent gives a parked bridge up because no ping has come.
pub const PINGS_STOPPED: &str = "its pings have stopped";

/// What precedes an address at which the proxy begins to listen, and what follows it in brackets.
pub const LISTENING: &str = "listening on ";

/// What precedes an address at which the proxy listens no more.
pub const NOT_LISTENING: &str = "no longer listening on ";

/// What precedes an address that another process has.
pub const CANNOT_LISTEN: &str = "cannot listen on ";

/// A server of the proxy or an application of the agent cannot be dialled.
pub const CANNOT_BE_REACHED: &str = "cannot be reached";

/// A server of the proxy has come back; its address is before this.
pub const IS_UP: &str = " is up";

/// An agent or a client has lost a proxy, or has not found one.
pub const NO_BRIDGE: &str = "no bridge to";

/// A proxy wants a key from an agent.
pub const REFUSES_BRIDGES: &str = "refuses bridges: 401";
