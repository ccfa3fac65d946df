//! What a light sink has to know of the wire: the clear part of RTP, the RTCP it reads and writes, SRTP.

pub mod keys;
pub mod rtcp;
pub mod rtp;
pub mod srtp;
pub mod twcc;
