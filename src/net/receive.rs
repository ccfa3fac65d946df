//! Reads many datagrams with one system call: `recvmmsg`, where the kernel may have joined datagrams of one sender (UDP
//! GRO). A worker has one [`Receiver`] with buffers for all of its sockets: [`Udp`](super::udp::Udp)'s and those of relayed
//! addresses.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};

/// An Ethernet frame. Longer datagrams are cut by the kernel and fail their integrity check.
const DATAGRAM_BYTES: usize = 1500;
/// The longest that several datagrams of one sender are joined to (GRO).
const JOINED_BYTES: usize = 1 << 16;

pub(super) struct Receiver {
    /// [`BATCH_SIZE`] slots.
    buffer: Box<[u8]>,
    slot: usize,
    metas: Vec<RecvMeta>,
    calls: u64,
}

/// A datagram as it came.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub source: SocketAddr,
    /// The address it was sent to as this machine sees it.
    pub local: Option<IpAddr>,
    pub bytes: &'a [u8],
}

impl Receiver {
    /// `state`: of any of the sockets it will read, which are all of one kind.
    pub fn new(state: &UdpSocketState) -> Receiver {
        let slot = if state.gro_segments() > 1 { JOINED_BYTES } else { DATAGRAM_BYTES };
        Receiver {
            buffer: vec![0; slot * BATCH_SIZE].into(),
            slot,
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            calls: 0,
        }
    }

    /// System calls made.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Reads one batch. Whether more may wait.
    pub fn receive(
        &mut self,
        socket: UdpSockRef<'_>,
        state: &UdpSocketState,
        mut each: impl FnMut(Arrival<'_>),
    ) -> io::Result<bool> {
        let mut slots = self.buffer.chunks_exact_mut(self.slot);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        self.calls += 1;
        let count = match state.recv(socket, &mut slices, &mut self.metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        for (meta, slot) in self.metas.iter().zip(self.buffer.chunks_exact(self.slot)).take(count) {
            let (source, local) = (canonical(meta.addr), meta.dst_ip.map(|ip| ip.to_canonical()));
            for bytes in slot[..meta.len].chunks(meta.stride.max(1)) {
                each(Arrival { source, local, bytes });
            }
        }
        // What comes after a batch that was not full is a new event.
        Ok(count == BATCH_SIZE)
    }
}

/// A dual-stack socket shows IPv4 peers as IPv6; everybody else knows them as what they are.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
