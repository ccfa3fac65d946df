//! What the generator asks of Linux: cores, file descriptors, socket buffers, and what the machine is.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Numbers of CPU cores.
pub type Cores = Vec<usize>;

/// The cores this process may use.
pub fn cores() -> Cores {
    // SAFETY: `set` is a plain bit mask, and the kernel is told its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return vec![0];
        }
        set
    };
    // SAFETY: the number is below the size of the mask.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Keeps the calling thread, and the threads and processes it starts from now on, on these cores.
pub fn pin_thread(cores: &[usize]) -> io::Result<()> {
    // SAFETY: as above; numbers beyond the mask are refused first.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the process open as many files as it may: two per client. Gives the limit.
pub fn raise_open_files() -> u64 {
    // SAFETY: both calls get a valid struct.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 1024;
        }
        // Root may exceed the hard limit as well.
        let wanted = limit.rlim_max.max(1 << 16);
        let raised = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
            return wanted;
        }
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        limit.rlim_cur
    }
}

/// Best effort: beyond `net.core.rmem_max` only for root.
pub fn enlarge_receive_buffer(socket: &impl AsRawFd, bytes: usize) {
    let bytes = bytes as libc::c_int;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: the option's value is an int, and its size is given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            return;
        }
    }
}

/// The address from which packets to `there` leave. Sends nothing.
pub fn address_towards(there: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// An address of this machine other than loopback, if it has one.
pub fn own_address() -> IpAddr {
    /// TEST-NET-1 (RFC 5737): never a neighbour's, so the default route decides.
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    address_towards((ELSEWHERE, 9).into()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// For the head of a report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
}

impl Machine {
    pub fn this() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            cpu: model.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned()),
            // All of them: the generator itself may be pinned to some.
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned() {
        std::thread::spawn(|| {
            let all = cores();
            assert!(!all.is_empty());
            pin_thread(&all[..1]).unwrap();
            assert_eq!(cores(), all[..1]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_machine_is_known() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.kernel.contains('.'));
    }
}
