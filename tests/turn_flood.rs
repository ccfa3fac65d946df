//! Twenty thousand who ask for an allocation and prove nothing: the server as it runs does not grow by them.
//!
//! Any address of 127.0.0.0/8 can be sent from, so each has an address of its own, and sockets are needed one at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stun_types::message::{BINDING, Message, MessageWriteVec, Method};
use stun_types::prelude::*;
use turn_types::attribute::RequestedTransport;
use turn_types::message::ALLOCATE;

/// So many at once fit the server's receive buffer, whatever its size.
const BATCH: u32 = 100;

/// Where the server listens: no other test is here, so a port that was free stays free.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

struct Server {
    process: Child,
    http: SocketAddr,
    media: SocketAddr,
    /// Who have asked so far.
    sources: u32,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("parlour.toml");
        let http = TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap();
        let media = UdpSocket::bind((HOST, 0)).unwrap().local_addr().unwrap();
        // One worker: when it has answered the last of a batch, it has seen all. And relay ports that the system does not
        // choose for others.
        let text = format!(
            "data_dir = {:?}\nserver_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\n[http]\nlisten = \"{http}\"\n[media]\nudp = \"{media}\"\ntcp = \"{HOST}:0\"\nworkers = 1\n[turn]\nrelay_ports = \"20000-29999\"\n",
            folder.path().join("data")
        );
        std::fs::write(&file, text).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_parlour"))
            .args(["serve", "--config", file.to_str().unwrap()])
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it is when it is there; what it says later goes nowhere.
        let mut announced = [0; 1];
        process.stdout.as_mut().unwrap().read_exact(&mut announced).unwrap();
        Server { process, http, media, sources: 0 }
    }

    fn send_from(&self, source: Ipv4Addr, method: Method) -> UdpSocket {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        if method == ALLOCATE {
            message.add_attribute(&RequestedTransport::new(RequestedTransport::UDP)).unwrap();
        }
        socket.send_to(&message.finish(), self.media).unwrap();
        socket
    }

    /// Allocates that nobody has signed, from so many more addresses.
    fn flood(&mut self, sources: u32) {
        for _ in 0..sources / BATCH {
            for _ in 0..BATCH {
                self.sources += 1;
                let [_, high, middle, low] = self.sources.to_be_bytes();
                self.send_from(Ipv4Addr::new(127, 100 + high, middle, low), ALLOCATE);
            }
            let [_, _, middle, low] = self.sources.to_be_bytes();
            let last = self.send_from(Ipv4Addr::new(127, 200, middle, low), BINDING);
            last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            last.recv(&mut [0; 100]).expect("an answer");
        }
    }

    /// The sum of the metrics that begin like this.
    fn counted(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.http).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.http).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let values = answer.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Waits for the metrics, which are brought up to date once a second, to show that so many were refused or not answered.
    fn await_refusals(&self, expected: u32) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let refused = self.counted("parlour_turn_refused_total{code=\"401\"}")
                + self.counted("parlour_turn_dropped_total{reason=\"unanswered\"}");
            if refused == f64::from(expected) {
                return;
            }
            assert!(Instant::now() < deadline, "{refused} of {expected} have come to the TURN server");
            sleep(Duration::from_millis(200));
        }
    }

    fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

#[test]
fn twenty_thousand_strangers_take_no_memory() {
    let mut server = Server::start();
    // What everything takes when it is used for the first time.
    server.flood(2000);
    server.await_refusals(2000);
    let warm_kb = server.resident_kb();
    server.flood(20_000);
    server.await_refusals(22_000);
    let after_kb = server.resident_kb();
    assert!(after_kb <= warm_kb + 1024, "{warm_kb} kB, then {after_kb} kB");
}
