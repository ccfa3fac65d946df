//! Our own server, in the process of the test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use parlour::config::Config;
use parlour_loadtest::server::{LOOPBACK, parlour as own};

/// Starts the server on a thread of its own; it ends with the process. Gives the addresses of its signalling and its media.
pub fn start() -> (SocketAddr, SocketAddr) {
    let folder = tempfile::tempdir().unwrap().keep();
    let free = || TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port();
    let (http, media) = (free(), free());
    let file = folder.join("parlour.toml");
    std::fs::write(&file, own::config(http, media, &folder.display().to_string())).unwrap();
    let config = Config::load(&file, std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
    std::fs::remove_dir_all(folder).unwrap();
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(parlour::serve::run(config)).unwrap();
    });
    for _ in 0..200 {
        if TcpStream::connect((LOOPBACK, http)).is_ok() {
            return (SocketAddr::new(LOOPBACK, http), SocketAddr::new(LOOPBACK, media));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the server did not start");
}
