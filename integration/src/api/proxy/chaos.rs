//! Faults at random, the same ones for the same seed.

use std::thread::sleep;
use std::time::Duration;

use crate::api::settings::Gone;
use crate::error::Error;

use super::endpoint::Endpoint;
use super::reply::{Reply, Which};
use super::weather::Cut;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All running streams end so.
    Cut(Cut),
    /// All connections drop.
    HangUp,
    /// The next so many requests of a sort are answered so; all streams are cut, so that there are some.
    Answers(usize, Which, Reply),
    /// Nothing passes for so long.
    Stall(Duration),
    /// It is down for so long.
    Down(Duration),
    /// Bodies come in small pieces from now on, or no more.
    Dribble(bool),
}

impl Fault {
    /// Lets it happen; returns when it is over, except for answers that nobody has asked for yet.
    ///
    /// # Errors
    /// When the endpoint doesn't come up again.
    pub fn strike(self, endpoint: &Endpoint) -> Result<(), Error> {
        match self {
            Fault::Cut(how) => endpoint.cut(how),
            Fault::HangUp => endpoint.hang_up(),
            Fault::Answers(times, which, reply) => {
                endpoint.answer_next(times, which, reply);
                endpoint.cut(Cut::Clean);
            }
            Fault::Stall(time) => {
                endpoint.stall(true);
                sleep(time);
                endpoint.stall(false);
            }
            Fault::Down(time) => {
                endpoint.down()?;
                sleep(time);
                endpoint.up()?;
            }
            Fault::Dribble(dribble) => endpoint.dribble(dribble),
        }
        Ok(())
    }
}

/// A source of faults (splitmix64, which needs no more state than a number).
#[derive(Debug, Clone)]
pub struct Chaos {
    state: u64,
}

impl Chaos {
    /// The faults of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A random number below `end` (0 for none), for the test's own choices.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    /// The next fault. None of them lasts longer than 300 ms.
    pub fn fault(&mut self) -> Fault {
        let times = usize::try_from(self.below(4)).unwrap_or_default() + 1;
        let time = Duration::from_millis(20 + self.below(280));
        match self.below(16) {
            0 => Fault::Cut(Cut::Clean),
            1 | 2 => Fault::Cut(Cut::Abrupt),
            3 | 4 => Fault::Cut(Cut::MidLine),
            5 => Fault::HangUp,
            6 => Fault::Stall(time),
            7 => Fault::Down(time),
            8 => Fault::Dribble(times % 2 == 0),
            9 => Fault::Answers(times, Which::verb("watch"), Reply::gone(Gone::Http)),
            10 => Fault::Answers(times, Which::verb("watch"), Reply::gone(Gone::Event)),
            11 => Fault::Answers(times, Which::any(), Reply::Status(429, Some(1))),
            12 => {
                let code = *[500, 502, 503, 504, 401, 403].get(times).unwrap_or(&500);
                Fault::Answers(times, Which::any(), Reply::Status(code, None))
            }
            13 => Fault::Answers(times, Which::any(), Reply::HalfLine),
            14 => Fault::Answers(times, Which::any(), Reply::Html(200)),
            _ => Fault::Answers(times, Which::any(), Reply::Empty),
        }
    }
}
