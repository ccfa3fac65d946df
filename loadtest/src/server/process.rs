//! What a process costs, as Linux counts it: CPU time of all its threads, memory, open files, datagrams it was too slow for.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::Duration;

/// One look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    /// Resident set, bytes.
    pub rss: u64,
    pub open_files: u64,
    /// Datagrams that its sockets had no room for, so far.
    pub socket_drops: u64,
}

impl Usage {
    /// User and system.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Reads the usage of one process again and again.
#[derive(Debug, Clone)]
pub struct Process {
    folder: String,
    /// Kernel ticks in a second.
    ticks: f64,
}

impl Process {
    pub fn new(pid: u32) -> io::Result<Process> {
        Process::at(format!("/proc/{pid}"))
    }

    /// The generator itself.
    pub fn this() -> io::Result<Process> {
        Process::at("/proc/self".into())
    }

    fn at(folder: String) -> io::Result<Process> {
        // SAFETY: asks for a number.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
        let process = Process { folder, ticks };
        process.usage()?;
        Ok(process)
    }

    /// `None` for ourselves.
    pub fn pid(&self) -> Option<u32> {
        self.folder.strip_prefix("/proc/")?.parse().ok()
    }

    pub fn usage(&self) -> io::Result<Usage> {
        let read = |file: &str| fs::read_to_string(format!("{}/{file}", self.folder));
        let (user, system) = cpu_ticks(&read("stat")?).ok_or(io::Error::other("an unreadable stat file"))?;
        let seconds = |ticks: u64| Duration::from_secs_f64(ticks as f64 / self.ticks);
        let sockets = self.sockets();
        let drops = ["udp", "udp6"].map(|file| read(&format!("net/{file}")).map_or(0, |table| drops(&table, &sockets)));
        Ok(Usage {
            user: seconds(user),
            system: seconds(system),
            rss: rss(&read("status")?).unwrap_or(0),
            open_files: fs::read_dir(format!("{}/fd", self.folder)).map_or(0, |files| files.count() as u64),
            socket_drops: drops.iter().sum(),
        })
    }

    /// The inodes of its sockets.
    fn sockets(&self) -> HashSet<String> {
        let Ok(files) = fs::read_dir(format!("{}/fd", self.folder)) else { return HashSet::new() };
        let inode = |file: fs::DirEntry| {
            let target = fs::read_link(file.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        };
        files.flatten().filter_map(inode).collect()
    }
}

/// `utime` and `stime` of /proc/pid/stat: fields 14 and 15, counted after the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// `VmRSS` of /proc/pid/status, bytes.
fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The last column of /proc/net/udp, of the sockets with these inodes.
fn drops(table: &str, inodes: &HashSet<String>) -> u64 {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        inodes.contains(*fields.get(9)?).then(|| fields.get(12)?.parse::<u64>().ok()).flatten()
    };
    table.lines().skip(1).filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some((111, 222)));
        assert_eq!(rss("Name:\tx\nVmRSS:\t  1024 kB\n"), Some(1 << 20));
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 12\n\
             2: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 30\n";
        assert_eq!(drops(table, &HashSet::from(["4711".into()])), 12);
    }

    #[test]
    fn working_costs_cpu_time() {
        let this = Process::this().unwrap();
        let before = this.usage().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = std::time::Instant::now();
        while this.usage().unwrap().user <= before.user && begun.elapsed() < Duration::from_secs(20) {}
        let after = this.usage().unwrap();
        assert!(after.user > before.user && after.rss > 1 << 20);
        assert!(this.sockets().len() as u64 <= after.open_files);
        drop(socket);
        assert!(Process::new(u32::MAX).is_err());
    }
}
