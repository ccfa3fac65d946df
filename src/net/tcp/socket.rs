//! A TCP socket with TLS on it or without: bytes in, bytes out. A [`Connection`](super::connection::Connection) has one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use mio::Registry;
use mio::net::TcpStream;
use mio::{Interest, Token};
use rustls::ServerConnection;

/// The largest piece of what waits that becomes one TLS record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 1 << 14;

pub(super) struct Socket {
    stream: TcpStream,
    /// Boxed: it is some kilobytes, and few connections have one.
    tls: Option<Box<ServerConnection>>,
}

impl Socket {
    pub fn new(stream: TcpStream, tls: Option<Box<ServerConnection>>) -> Socket {
        // What is said is short and waits for nothing.
        let _ = stream.set_nodelay(true);
        Socket { stream, tls }
    }

    /// Whether events come for both directions from now on.
    pub fn register(&mut self, registry: &Registry, token: Token) -> bool {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE).is_ok()
    }

    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }

    /// What came, decrypted: 0 bytes are the end, [`ErrorKind::WouldBlock`] that nothing waits, in TLS neither, and
    /// [`ErrorKind::Interrupted`] that something came which says nothing yet. One read of the socket at most: who sends
    /// empty records must not keep us longer than others.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.read(buffer) };
        // First what is decrypted already: no event tells of it.
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
        if tls.read_tls(&mut self.stream)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::Interrupted.into()),
            done => done,
        }
    }

    /// Writes from the front of `backlog` until it is empty or the socket takes no more. Of what was encrypted but not
    /// taken, at most one record, the rest goes out first next time.
    pub fn write(&mut self, backlog: &mut VecDeque<u8>) -> io::Result<()> {
        match self.write_some(backlog) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }

    fn write_some(&mut self, backlog: &mut VecDeque<u8>) -> io::Result<()> {
        loop {
            self.write_records()?;
            let (front, _) = backlog.as_slices();
            if front.is_empty() {
                return Ok(());
            }
            let taken = match &mut self.tls {
                Some(tls) => tls.writer().write(&front[..front.len().min(RECORD_BYTES)]),
                None => self.stream.write(front),
            };
            match taken {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => drop(backlog.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What TLS itself has to say: encrypted records, answers to key updates, alerts.
    fn write_records(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.wants_write())
    }

    /// The last word of TLS, so that the peer can tell the end from one that somebody cut: if the socket takes it now.
    pub fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = self.write_records();
        }
    }
}
