//! Janus, started for one run: VideoRoom behind its WebSocket transport and nothing else. (Comes with its driver.)
