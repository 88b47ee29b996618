//! A server of names in a place.
//!
//! In: a place, and what it answers to a query. Out: a server over UDP on port 53, until it is dropped.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use super::Place;

/// Answers queries for as long as it lives.
#[derive(Debug)]
pub struct Resolver {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// `answer`: the reply to a query, or none.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub fn start(place: &Place, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Result<Self> {
        let socket = place.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let ends = Arc::new(AtomicBool::new(false));
        let has_ended = ends.clone();
        let thread = thread::spawn(move || {
            let mut query = [0; 512];
            while !has_ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut query)
                    && let Some(reply) = answer(&query[..length])
                {
                    // Who asked may have gone.
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Ok(Self { ends, thread: Some(thread) })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread shows as missing answers.
            let _ = thread.join();
        }
    }
}
