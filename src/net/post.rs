//! What workers hand to one another: packets and TCP connections that reached the wrong one's socket, and news about whose
//! addresses are whose. Each [`Worker`](super::worker::Worker) has a [`Post`]; the boxes are shared.
//!
//! Packets are gathered for a turn and handed over together, with one lock and at most one wake-up for all of them. The
//! buffers go to and fro, so nothing is allocated once they have grown.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;

use super::owners::{News, Owners};
use super::tcp::Moved;
use super::udp::Received;
use crate::sfu::{AddressChange, WorkerId};
use crate::transport::Protocol;
use crate::transport::classify::{Datagram, classify};

/// Bytes of packets that may wait for one worker: as many as its socket's buffer holds. What comes on top is dropped.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// Packets that may wait for one worker, however short.
const MAX_WAITING_PACKETS: usize = 1 << 14;

/// What waits for one worker.
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    filled: AtomicBool,
    waker: Arc<Waker>,
}

#[derive(Default)]
pub(super) struct Mail {
    pub packets: Parcel,
    pub streams: Vec<Moved>,
    news: Vec<News>,
}

/// Packets, back to back in one buffer.
#[derive(Default)]
pub(super) struct Parcel {
    bytes: Vec<u8>,
    labels: Vec<Label>,
}

#[derive(Clone, Copy)]
struct Label {
    source: SocketAddr,
    candidate: SocketAddr,
    local: Option<IpAddr>,
    /// Where the packet ends.
    end: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets given to another worker.
    pub handed_over: u64,
    /// Packets that it had no room for.
    pub overflowed: u64,
    /// System calls made to wake others.
    pub wakes: u64,
}

/// One worker's side of it.
pub(super) struct Post {
    here: WorkerId,
    owners: Owners,
    boxes: Arc<[Mailbox]>,
    /// For each worker, what this turn found of its.
    parcels: Vec<Parcel>,
    /// What the others have not heard yet.
    news: Vec<News>,
    counts: Counts,
}

impl Mailbox {
    /// `waker` gets its owner to look.
    pub fn new(waker: Arc<Waker>) -> Mailbox {
        Mailbox { mail: Mutex::default(), filled: AtomicBool::new(false), waker }
    }

    /// Nothing that could panic is done while it is held, so what a poisoned one holds is whole.
    fn open(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells its owner that something is in it. Whether that took a system call.
    fn ring(&self) -> bool {
        // Who finds it filled already relies on the ring of the one before: the owner empties it only after unsetting this.
        if self.filled.swap(true, Ordering::AcqRel) {
            return false;
        }
        // It can only fail when the owner is gone.
        let _ = self.waker.wake();
        true
    }
}

impl Parcel {
    /// False: no room.
    fn push(&mut self, received: &Received<'_>) -> bool {
        let full = self.labels.len() >= MAX_WAITING_PACKETS;
        if full || self.bytes.len() + received.bytes.len() > MAX_WAITING_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(received.bytes);
        let Received { source, candidate, local, .. } = *received;
        self.labels.push(Label { source, candidate, local, end: self.bytes.len() });
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        let mut start = 0;
        self.labels.iter().map(move |label| {
            let bytes = &self.bytes[start..label.end];
            start = label.end;
            Received { source: label.source, candidate: label.candidate, local: label.local, bytes }
        })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
    }
}

impl Post {
    /// `boxes` has one for each worker, this one's included.
    pub fn new(here: WorkerId, boxes: Arc<[Mailbox]>) -> Post {
        let parcels = boxes.iter().map(|_| Parcel::default()).collect();
        Post { here, owners: Owners::new(here), boxes, parcels, news: Vec::new(), counts: Counts::default() }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn here(&self) -> WorkerId {
        self.here
    }

    /// The other worker that a packet of this kind belongs to, as far as one can tell.
    pub fn elsewhere(&self, source: &SocketAddr, kind: Datagram<'_>) -> Option<WorkerId> {
        if self.boxes.len() == 1 {
            return None;
        }
        match kind {
            Datagram::Stun { local_ufrag: Some(ufrag) } => self.named(ufrag),
            Datagram::Stun { local_ufrag: None } | Datagram::Dtls | Datagram::Rtp => self.owners.elsewhere(source),
            Datagram::Turn | Datagram::Oversized | Datagram::Unknown => None,
        }
    }

    /// The other worker that a connectivity check names.
    pub fn addressee(&self, packet: &[u8]) -> Option<WorkerId> {
        match classify(packet) {
            Datagram::Stun { local_ufrag: Some(ufrag) } => self.named(ufrag),
            _ => None,
        }
    }

    fn named(&self, ufrag: &str) -> Option<WorkerId> {
        WorkerId::of_ufrag(ufrag).filter(|worker| *worker != self.here && worker.index() < self.boxes.len())
    }

    /// Puts a packet aside for [`Self::dispatch`].
    pub fn hand_over(&mut self, to: WorkerId, received: &Received<'_>) {
        match self.parcels[to.index()].push(received) {
            true => self.counts.handed_over += 1,
            false => self.counts.overflowed += 1,
        }
    }

    /// Gives the others what this turn found.
    pub fn dispatch(&mut self) {
        for (index, (mailbox, parcel)) in self.boxes.iter().zip(&mut self.parcels).enumerate() {
            let news = if index == self.here.index() { &[][..] } else { &self.news };
            if parcel.labels.is_empty() && news.is_empty() {
                continue;
            }
            let mut mail = mailbox.open();
            mail.news.extend_from_slice(news);
            if mail.packets.labels.is_empty() {
                std::mem::swap(&mut mail.packets, parcel);
            } else {
                let lost = parcel.iter().filter(|received| !mail.packets.push(received)).count() as u64;
                self.counts.overflowed += lost;
                self.counts.handed_over -= lost;
            }
            drop(mail);
            parcel.clear();
            self.counts.wakes += u64::from(mailbox.ring());
        }
        self.news.clear();
    }

    pub fn move_stream(&mut self, to: WorkerId, stream: Moved) {
        let mailbox = &self.boxes[to.index()];
        mailbox.open().streams.push(stream);
        self.counts.wakes += u64::from(mailbox.ring());
    }

    /// Notes what became of an address of this worker's; told with [`Self::dispatch`].
    pub fn note(&mut self, change: AddressChange) {
        // A TCP connection is its worker's as a whole.
        if change.protocol != Protocol::Udp {
            return;
        }
        self.tell(match change.known {
            true => News::Proved(self.here, change.address),
            false => News::GaveUp(self.here, change.address),
        });
    }

    /// This worker lost all its connections.
    pub fn note_loss(&mut self) {
        self.tell(News::LostAll(self.here));
    }

    fn tell(&mut self, news: News) {
        self.owners.hear(news);
        self.news.push(news);
    }

    /// Whether something came. It is swapped for `mail`, which has to be empty.
    pub fn collect(&mut self, mail: &mut Mail) -> bool {
        let mailbox = &self.boxes[self.here.index()];
        if !mailbox.filled.swap(false, Ordering::AcqRel) {
            return false;
        }
        std::mem::swap(&mut *mailbox.open(), mail);
        mail.news.drain(..).for_each(|news| self.owners.hear(news));
        true
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    fn posts(count: usize) -> (Vec<Post>, Vec<Poll>) {
        let polls: Vec<Poll> = (0..count).map(|_| Poll::new().unwrap()).collect();
        let wakers = polls.iter().map(|poll| Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        let boxes: Arc<[Mailbox]> = wakers.map(Mailbox::new).collect();
        ((0..count).map(|index| Post::new(worker(index), boxes.clone())).collect(), polls)
    }

    fn worker(index: usize) -> WorkerId {
        WorkerId::new(index).unwrap()
    }

    fn from(port: u16, bytes: &[u8]) -> Received<'_> {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        Received { source: address(port), candidate: address(3478), local: Some([10, 0, 0, 1].into()), bytes }
    }

    /// A binding request for the connection with this user fragment.
    fn check(fragment: &str) -> Vec<u8> {
        let username = format!("{fragment}:peer");
        let padded = username.len().next_multiple_of(4);
        let mut message = vec![0, 1, 0, padded as u8 + 4, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0, 6, 0, username.len() as u8]);
        message.extend(username.bytes());
        message.resize(20 + 4 + padded, 0);
        message
    }

    fn contents(mail: &Mail) -> Vec<(u16, Vec<u8>)> {
        mail.packets.iter().map(|packet| (packet.source.port(), packet.bytes.to_vec())).collect()
    }

    #[test]
    fn packets_arrive_as_they_were_in_the_order_of_each_sender() {
        let (mut posts, _polls) = posts(3);
        let mut mail = Mail::default();
        assert!(!posts[2].collect(&mut mail));
        for round in 0..3u8 {
            for (port, post) in (1..).zip(&mut posts[..2]) {
                post.hand_over(worker(2), &from(port, &[round; 3]));
                post.hand_over(worker(2), &from(port, &[round; 5]));
                post.dispatch();
            }
            assert!(posts[2].collect(&mut mail));
            let three = |sender| (sender, vec![round; 3]);
            let five = |sender| (sender, vec![round; 5]);
            assert_eq!(contents(&mail), [three(1), five(1), three(2), five(2)]);
            let first = mail.packets.iter().next().map(|packet| (packet.candidate.port(), packet.local));
            assert_eq!(first, Some((3478, Some([10, 0, 0, 1].into()))));
            mail.packets.clear();
            assert!(!posts[2].collect(&mut mail));
        }
        // The first to find a box empty rings.
        let wakes: Vec<u64> = posts.iter().map(|post| post.counts().wakes).collect();
        assert_eq!(wakes, [3, 0, 0]);
        assert_eq!(posts[0].counts().handed_over, 6);
    }

    #[test]
    fn a_worker_that_does_not_come_to_read_costs_bounded_memory() {
        let (mut posts, _polls) = posts(2);
        let packet = [0; 1400];
        let mut sent = 0;
        for _ in 0..40 {
            for _ in 0..200 {
                posts[0].hand_over(worker(1), &from(1, &packet));
                sent += 1;
            }
            posts[0].dispatch();
        }
        let Counts { handed_over, overflowed, .. } = posts[0].counts();
        assert_eq!(handed_over + overflowed, sent);
        assert_eq!(handed_over as usize, MAX_WAITING_BYTES / packet.len());
        // Empty ones cost too.
        for _ in 0..2 * MAX_WAITING_PACKETS {
            posts[1].hand_over(worker(0), &from(1, &[]));
        }
        posts[1].dispatch();
        assert_eq!(posts[1].counts().handed_over as usize, MAX_WAITING_PACKETS);
        let mut mail = Mail::default();
        assert!(posts[1].collect(&mut mail));
        assert_eq!(contents(&mail).len(), handed_over as usize);
    }

    #[test]
    fn checks_go_by_their_name_and_all_else_by_its_sender() {
        let (mut posts, _polls) = posts(3);
        let (rtp, here) = ([0x80; 40], from(1, &[]).source);
        let fragment = |letter: char| check(&format!("{letter}abcdefghijklmno"));
        let elsewhere = |posts: &[Post], packet: &[u8]| posts[0].elsewhere(&here, classify(packet));
        assert_eq!(elsewhere(&posts, &fragment('A')), None, "ours");
        assert_eq!(elsewhere(&posts, &fragment('C')), Some(worker(2)));
        assert_eq!(elsewhere(&posts, &fragment('D')), None, "there is no fourth");
        assert_eq!(elsewhere(&posts, &rtp), None, "nobody's");
        let change = |known| AddressChange { protocol: Protocol::Udp, address: here, known };
        posts[1].note(change(true));
        posts[1].dispatch();
        for index in [0, 2] {
            assert!(posts[index].collect(&mut Mail::default()));
        }
        assert_eq!(elsewhere(&posts, &rtp), Some(worker(1)));
        assert_eq!(elsewhere(&posts, &fragment('C')), Some(worker(2)), "a check knows better");
        assert_eq!(elsewhere(&posts, &[0x40; 40]), None, "neither of ours");
        posts[1].note(change(false));
        posts[1].note(change(true));
        posts[1].note_loss();
        posts[1].dispatch();
        assert!(posts[0].collect(&mut Mail::default()));
        assert_eq!(elsewhere(&posts, &rtp), None);
        let tcp = AddressChange { protocol: Protocol::Tcp, ..change(true) };
        posts[1].note(tcp);
        posts[1].dispatch();
        assert!(!posts[0].collect(&mut Mail::default()), "TCP connections move as a whole");
    }

    #[test]
    fn one_worker_alone_asks_nobody() {
        let (posts, _polls) = posts(1);
        assert_eq!(posts[0].elsewhere(&from(1, &[]).source, classify(&check("Cabcdefghijklmno"))), None);
    }
}
