//! Tells the program that supervises the daemon (systemd) how it fares, by the protocol of sd_notify(3): datagrams to a
//! socket that the environment names. Knows no stage.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where signs of life go; nowhere if nobody asked for them.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Without a sign for this long the daemon is ended from outside.
    watchdog: Option<Duration>,
    begun: Instant,
    last_ms: AtomicU64,
}

/// How often the work loop looks up when nobody waits for its signs.
const IDLE: Duration = Duration::from_secs(3600);

impl Supervisor {
    /// As the environment says: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID. A socket that cannot be used is logged.
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0).map(Duration::from_micros);
        let socket = variable("NOTIFY_SOCKET").and_then(|name| {
            open(&name)
                .map_err(|error| tracing::warn!(%error, "The supervisor's socket NOTIFY_SOCKET cannot be used."))
                .ok()
        });
        Supervisor { watchdog: watchdog.filter(|_| socket.is_some()), socket, ..Supervisor::none() }
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Supervisor { socket: None, watchdog: None, begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// Models are loaded and proven, the inbox is watched.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// What was taken is finished, then the daemon ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// A sign of life, to be given by the work loop itself and only while it makes progress. At most four in each period.
    pub fn alive(&self) {
        let Some(watchdog) = self.watchdog else { return };
        // Starts at 1, so that the first sign is given at once.
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.last_ms.load(Ordering::Relaxed);
        if last == 0 || u128::from(now - last.min(now)) >= watchdog.as_millis() / 4 {
            self.last_ms.store(now, Ordering::Relaxed);
            self.say("WATCHDOG=1");
        }
    }

    /// The longest that a work loop may wait before its next sign.
    pub fn interval(&self) -> Duration {
        self.watchdog.map_or(IDLE, |watchdog| (watchdog / 4).max(Duration::from_millis(1)))
    }

    fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A supervisor that does not listen now misses this sign; the work goes on.
            if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
                tracing::debug!(%error, state, "The supervisor was not reached.");
            }
        }
    }
}

fn open(name: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_go_to_paths_and_abstract_names_and_are_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("@ichd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (listener, name) in [(by_path, path.as_os_str()), (by_name, OsStr::new(&name))] {
            listener.set_nonblocking(true).unwrap();
            let watchdog = Some(Duration::from_secs(3600));
            let supervisor = Supervisor { socket: Some(open(name).unwrap()), watchdog, ..Supervisor::none() };
            supervisor.ready();
            supervisor.alive();
            supervisor.alive();
            supervisor.stopping();
            let mut heard = Vec::new();
            let mut buffer = [0; 64];
            while let Ok(bytes) = listener.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..bytes]).into_owned());
            }
            assert_eq!(heard, ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        }
        Supervisor::none().ready();
        assert_eq!(Supervisor::none().interval(), IDLE);
    }
}
