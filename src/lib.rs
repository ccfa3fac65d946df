pub mod rtp;
pub mod transport;
