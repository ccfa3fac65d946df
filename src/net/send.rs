//! Sends many packets with one system call: `sendmmsg` over messages that each hold up to ten packets for one receiver, cut
//! by the kernel (UDP GSO). Called by [`Udp`](super::udp::Udp) with what is in the outbox.
//!
//! A kernel or a driver that refuses is asked for less and less: no offload, then a `sendmsg` for each packet. What cannot
//! be sent is lost and counted, as on any network; nothing here waits.
//!
//! The only unsafe code of the crate.

use std::ffi::c_void;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::SockAddr;

use crate::transport::Packets;

/// Messages of one system call. Eight have most of the gain, and what is prepared here should stay in the first-level cache.
const BATCH: usize = 32;
/// Packets of one message. The kernel's work per packet halves with five and hardly falls beyond ten, while longer bursts
/// overflow the queues of home routers.
const MAX_SEGMENTS: usize = 10;
/// What UDP over IPv4 can carry in one message, segmented or not.
const MAX_MESSAGE_BYTES: usize = 65_507;

/// What moved, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub calls: u64,
    /// That the kernel took.
    pub messages: u64,
    pub packets: u64,
    /// Packets that the socket's buffer had no room for.
    pub overflowed: u64,
    /// Packets that the kernel refused for another reason, such as a missing route.
    pub refused: u64,
}

pub(super) struct Sender {
    /// Whether the kernel is trusted to cut messages.
    segments: bool,
    /// It has done so: a refusal is about one receiver's route then.
    has_segmented: bool,
    many: bool,
    counts: Counts,
}

impl Sender {
    /// `segments`: the kernel knows UDP GSO.
    pub fn new(segments: bool) -> Sender {
        Sender { segments, has_segmented: false, many: true, counts: Counts::default() }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Collects runs of packets for `socket`, and sends them whenever there are enough. End it with [`Batch::flush`].
    pub fn batch<'a>(&'a mut self, socket: BorrowedFd<'a>) -> Batch<'a, impl Kernel> {
        Batch::new(self, move |call: Call<'_>| transmit(socket, call))
    }

    fn count(&mut self, sent: &[Message<'_>]) {
        self.counts.messages += sent.len() as u64;
        for message in sent {
            let packets = message.packets();
            self.counts.packets += packets as u64;
            self.has_segmented |= packets > 1;
        }
    }

    fn do_without_segments(&mut self, error: &io::Error) {
        if std::mem::take(&mut self.segments) {
            tracing::info!(%error, "UDP segmentation offload does not work here; sending without it");
        }
    }
}

/// Packets of one size for one receiver, back to back.
#[derive(Clone, Copy)]
struct Message<'a> {
    destination: SocketAddr,
    /// The local address it leaves from; `None`: the kernel chooses.
    source: Option<IpAddr>,
    bytes: &'a [u8],
    /// Bytes of each packet but the last, which may be shorter.
    segment: usize,
}

impl Message<'_> {
    const NONE: Message<'static> = Message {
        destination: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
        source: None,
        bytes: &[],
        segment: 0,
    };

    fn packets(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1))
    }
}

/// What the kernel is asked: all messages with `sendmmsg`, or the first with `sendmsg`.
pub(super) struct Call<'a> {
    messages: &'a [Message<'a>],
    many: bool,
}

/// Packets on their way into the kernel.
pub(super) struct Batch<'a, K> {
    way: Way<'a, K>,
    messages: [Message<'a>; BATCH],
    len: usize,
}

impl<'a, K: Kernel> Batch<'a, K> {
    fn new(sender: &'a mut Sender, kernel: K) -> Self {
        Batch { way: Way { sender, kernel }, messages: [Message::NONE; BATCH], len: 0 }
    }

    /// Adds packets that go the same way.
    pub fn run(&mut self, destination: SocketAddr, source: Option<IpAddr>, packets: Packets<'a>) {
        let limit = if self.way.sender.segments { MAX_SEGMENTS } else { 1 };
        let bytes = packets.bytes();
        let (mut start, mut end, mut segment, mut count) = (0, 0, 0, 0);
        for packet in packets {
            let len = packet.len();
            // A shorter one is the last of its message.
            let fits = len <= segment
                && count < limit
                && end - start == count * segment
                && end - start + len <= MAX_MESSAGE_BYTES;
            if !fits {
                if count > 0 {
                    self.push(Message { destination, source, bytes: &bytes[start..end], segment });
                }
                (start, segment, count) = (end, len, 0);
            }
            end += len;
            count += 1;
        }
        if count > 0 {
            self.push(Message { destination, source, bytes: &bytes[start..end], segment });
        }
    }

    fn push(&mut self, message: Message<'a>) {
        if self.len == BATCH {
            self.flush();
        }
        self.messages[self.len] = message;
        self.len += 1;
    }

    /// Sends what is left.
    pub fn flush(&mut self) {
        self.way.send(&self.messages[..self.len]);
        self.len = 0;
    }
}

/// Gives how many messages it took, or what is wrong with the first.
pub(super) trait Kernel: FnMut(Call<'_>) -> io::Result<usize> {}
impl<F: FnMut(Call<'_>) -> io::Result<usize>> Kernel for F {}

struct Way<'a, K> {
    sender: &'a mut Sender,
    kernel: K,
}

impl<K: Kernel> Way<'_, K> {
    /// Gives how many messages the kernel took.
    fn send(&mut self, messages: &[Message<'_>]) -> usize {
        let (mut rest, mut taken) = (messages, 0);
        while let Some(first) = rest.first() {
            self.sender.counts.calls += 1;
            let done = match (self.kernel)(Call { messages: rest, many: self.sender.many }) {
                Ok(count) => {
                    taken += count;
                    self.sender.count(&rest[..count]);
                    count
                }
                Err(error) => usize::from(self.refused(first, &error)),
            };
            rest = &rest[done..];
        }
        taken
    }

    /// Whether the message is done with; otherwise it is to be tried again.
    fn refused(&mut self, message: &Message<'_>, error: &io::Error) -> bool {
        let packets = message.packets();
        let errno = error.raw_os_error().unwrap_or_default();
        match errno {
            libc::EINTR => return false,
            libc::ENOSYS if self.sender.many => {
                self.sender.many = false;
                return false;
            }
            // The network card is busy: these packets are lost, the next may find room.
            libc::EAGAIN | libc::ENOBUFS => self.sender.counts.overflowed += packets as u64,
            // EIO: a driver that cannot make checksums for segments. EINVAL: a kernel that does not know them, or a route
            // with a smaller MTU.
            libc::EIO | libc::EINVAL if packets > 1 => {
                let taken = self.send_singly(message);
                if errno == libc::EIO || (taken > 0 && !self.sender.has_segmented) {
                    self.sender.do_without_segments(error);
                }
            }
            _ => self.sender.counts.refused += packets as u64,
        }
        true
    }

    fn send_singly(&mut self, message: &Message<'_>) -> usize {
        let mut singles = [Message::NONE; MAX_SEGMENTS];
        let packets = message.bytes.chunks(message.segment);
        let count = packets.len();
        for (single, packet) in singles.iter_mut().zip(packets) {
            *single = Message { bytes: packet, segment: packet.len(), ..*message };
        }
        self.send(&singles[..count])
    }
}

// --- the kernel --------------------------------------------------------------------------------------------------

/// Room for the local address (IPv6's is the larger) and the size of segments.
const CONTROL_BYTES: usize = control_space::<libc::in6_pktinfo>() + control_space::<u16>();

const fn control_space<T>() -> usize {
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}

/// Control messages of one message, aligned as their headers have to be.
#[repr(C)]
struct Control {
    _align: [libc::cmsghdr; 0],
    bytes: [u8; CONTROL_BYTES],
}

fn transmit(socket: BorrowedFd<'_>, call: Call<'_>) -> io::Result<usize> {
    let mut names = [const { MaybeUninit::<SockAddr>::uninit() }; BATCH];
    let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let count = call.messages.len().min(if call.many { BATCH } else { 1 });
    let places = names.iter_mut().zip(&mut slices).zip(&mut controls).zip(&mut headers);
    for (message, (((name, slice), control), header)) in call.messages[..count].iter().zip(places) {
        let name = name.write(SockAddr::from(message.destination));
        // The kernel only reads from here.
        let slice = slice
            .write(libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() });
        let control = control.write(Control { _align: [], bytes: [0; CONTROL_BYTES] });
        // SAFETY: msghdr is plain data, and all zeros is its empty value.
        let mut msg_hdr: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
        msg_hdr.msg_namelen = name.len();
        msg_hdr.msg_iov = slice;
        msg_hdr.msg_iovlen = 1;
        fill_control(&mut msg_hdr, control, message);
        header.write(libc::mmsghdr { msg_hdr, msg_len: 0 });
    }
    // SAFETY: the first `count` headers were written above. Each points to a name, a slice and control bytes in arrays of
    // this function, and through the slice to the borrowed bytes of its message; all of them outlive the call.
    let result = unsafe {
        if call.many {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count as u32, 0) as isize
        } else {
            let first: *const libc::mmsghdr = headers.as_ptr().cast();
            libc::sendmsg(socket.as_raw_fd(), &raw const (*first).msg_hdr, 0).min(1)
        }
    };
    // A message that was sent with nothing of it taken does not exist in UDP.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((result as usize).max(1)) }
}

/// Says where the message leaves from and how it is cut.
fn fill_control(header: &mut libc::msghdr, control: &mut Control, message: &Message<'_>) {
    header.msg_control = ptr::from_mut(&mut control.bytes).cast();
    header.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: the header names `control`, which is aligned for control messages and has room for the two that are written.
    unsafe {
        let mut place = libc::CMSG_FIRSTHDR(header);
        let mut used = 0;
        match message.source {
            Some(IpAddr::V4(ip)) => {
                let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: libc::in_addr { s_addr: 0 } };
                used += put(header, &mut place, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(ip)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                used += put(header, &mut place, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if message.packets() > 1 {
            used += put(header, &mut place, libc::SOL_UDP, libc::UDP_SEGMENT, message.segment as u16);
        }
        header.msg_controllen = used as _;
        if used == 0 {
            header.msg_control = ptr::null_mut::<c_void>();
        }
    }
}

/// Writes one control message at `place` and moves on; gives the bytes it takes.
///
/// # Safety
/// `place` lies in the control bytes of `header`, with room for a `T`.
unsafe fn put<T>(header: &libc::msghdr, place: &mut *mut libc::cmsghdr, level: i32, kind: i32, value: T) -> usize {
    // SAFETY: by the caller's promise; `write_unaligned` as the data need not be aligned for `T`.
    unsafe {
        (**place).cmsg_level = level;
        (**place).cmsg_type = kind;
        (**place).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(*place).cast::<T>().write_unaligned(value);
        *place = libc::CMSG_NXTHDR(header, *place);
    }
    control_space::<T>()
}

#[cfg(test)]
mod tests;
