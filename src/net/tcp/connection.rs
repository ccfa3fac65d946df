//! One TCP connection: what it carries, whose it is, what waits to be sent.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::places::Place;
use super::socket::Socket;
use crate::sfu::WorkerId;
use crate::transport::{Protocol, Route, framing as ice};
use crate::turn::framing::{self as turn, Stream, sniff};

/// Unsent bytes of one connection: a second of video. Media older than that is worthless; what is beyond is dropped.
const MAX_BACKLOG_BYTES: usize = 1 << 18;
/// Reads of one connection before the others get their turn: more than a second of video in one go is a flood.
const MAX_READS: usize = 16;

pub(super) struct Connection {
    pub socket: Socket,
    /// How it is answered: from the candidate or port it was accepted at to its client.
    pub route: Route,
    /// Of the last sign that it is wanted: it says something, or whoever it is for has a use for it.
    pub alive: Instant,
    framing: Framing,
    backlog: VecDeque<u8>,
    /// Its first packet came, so it is known whose it is.
    settled: bool,
    _place: Place,
}

/// How packets are told apart; for both directions.
enum Framing {
    /// It did not say enough yet for [`sniff`].
    Unknown(Vec<u8>),
    Ice(ice::Deframer),
    Turn(turn::Deframer),
}

/// How a reading ended.
pub(super) enum Reading {
    /// All was read.
    Dry,
    /// There is more, but others wait too.
    Paused,
    /// The first packet names this worker.
    Moves(WorkerId, Vec<u8>),
}

impl Connection {
    pub fn new(socket: Socket, local: SocketAddr, client: SocketAddr, now: Instant, place: Place) -> Connection {
        Connection {
            socket,
            route: Route { protocol: Protocol::Tcp, source: local, destination: client },
            alive: now,
            framing: Framing::Unknown(Vec::new()),
            backlog: VecDeque::new(),
            settled: false,
            _place: place,
        }
    }

    /// `None` as long as it is not known.
    pub fn stream(&self) -> Option<Stream> {
        match self.framing {
            Framing::Unknown(_) => None,
            Framing::Ice(_) => Some(Stream::Ice),
            Framing::Turn(_) => Some(Stream::Turn),
        }
    }

    /// From now on it stays with this worker.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// It is known to be TURN's without a look at its first bytes.
    pub fn speaking_turn(self) -> Connection {
        Connection { framing: Framing::Turn(turn::Deframer::default()), ..self }
    }

    /// Reads what there is, within bounds, and gives each packet to `each`; but when the first is `elsewhere`, ends there.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        elsewhere: &impl Fn(&[u8]) -> Option<WorkerId>,
        each: &mut impl FnMut(Stream, Route, &[u8]),
    ) -> io::Result<Reading> {
        let mut reads = 0;
        loop {
            while let Some((stream, packet)) = self.framing.next()? {
                if !std::mem::replace(&mut self.settled, true)
                    && stream == Stream::Ice
                    && let Some(worker) = elsewhere(packet)
                {
                    return Ok(Reading::Moves(worker, packet.to_vec()));
                }
                each(stream, self.route, packet);
            }
            if reads == MAX_READS {
                return Ok(Reading::Paused);
            }
            reads += 1;
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.framing.push(&buffer[..count])?;
                    // With TURN, talk is cheap: what keeps it is an allocation.
                    if self.stream() == Some(Stream::Ice) {
                        self.alive = now;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Dry),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts a packet behind what waits to be sent; dropped when that is too much already.
    pub fn queue(&mut self, packet: &[u8]) {
        if self.backlog.len() + packet.len() > MAX_BACKLOG_BYTES {
            return;
        }
        match self.framing {
            Framing::Ice(_) => {
                let Some(header) = ice::header(packet.len()) else { return };
                self.backlog.extend(header);
            }
            Framing::Turn(_) => {}
            // Nobody knows of it who could have something to say to it.
            Framing::Unknown(_) => return,
        }
        self.backlog.extend(packet);
    }

    #[cfg(test)]
    pub fn is_flushed(&self) -> bool {
        self.backlog.is_empty() && self.socket.is_flushed()
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.write(&mut self.backlog)
    }
}

impl Framing {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Framing::Unknown(first) => {
                first.extend_from_slice(bytes);
                let known = match sniff(first).map_err(io::Error::other)? {
                    None => return Ok(()),
                    Some(Stream::Ice) => Framing::Ice(ice::Deframer::default()),
                    Some(Stream::Turn) => Framing::Turn(turn::Deframer::default()),
                };
                let first = std::mem::take(first);
                *self = known;
                self.push(&first)
            }
            Framing::Ice(deframer) => deframer.push(bytes).map_err(io::Error::other),
            Framing::Turn(deframer) => deframer.push(bytes).map_err(io::Error::other),
        }
    }

    fn next(&mut self) -> io::Result<Option<(Stream, &[u8])>> {
        match self {
            Framing::Unknown(_) => Ok(None),
            Framing::Ice(deframer) => {
                let packet = deframer.next_frame().map_err(io::Error::other)?;
                Ok(packet.map(|packet| (Stream::Ice, packet)))
            }
            Framing::Turn(deframer) => {
                let message = deframer.next_message().map_err(io::Error::other)?;
                Ok(message.map(|message| (Stream::Turn, message)))
            }
        }
    }
}
