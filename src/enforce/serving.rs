//! The daemon's own HTTP server, which may have to wait for its address: who has it must not keep policies from being enforced.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::standing::Standing;
use crate::observe::{HttpAddress, HttpError, Observer, Server};

/// Serves health and metrics, or waits until it can.
#[derive(Debug)]
pub(super) struct Serving {
    /// Where it is to serve and can't yet.
    wanted: Option<SocketAddr>,
    server: Option<Server>,
    observer: Arc<Observer>,
    problems: Standing,
}

impl Serving {
    /// Serves at `address`, or says who is in the way.
    ///
    /// # Errors
    /// [`HttpError`] where waiting mends nothing: the address is not this host's.
    pub fn start(address: HttpAddress, observer: Arc<Observer>) -> Result<Self, HttpError> {
        let mut serving = Self {
            wanted: match address {
                HttpAddress::At(address) => Some(address),
                HttpAddress::Off => None,
            },
            server: None,
            observer,
            problems: Standing::default(),
        };
        serving.attempt()?;
        Ok(serving)
    }

    /// Tries again, where it has to.
    pub fn check(&mut self) {
        // Whatever has changed since, it will be tried again.
        if let Err(error) = self.attempt() {
            self.problems.update([error.to_string()]);
        }
    }

    fn attempt(&mut self) -> Result<(), HttpError> {
        let Some(address) = self.wanted else {
            return Ok(());
        };
        match Server::start(address, self.observer.clone()) {
            Ok(server) => {
                self.server = Some(server);
                self.wanted = None;
                self.problems.update([]);
                Ok(())
            }
            Err(error) if is_taken(&error) => {
                self.problems
                    .update([format!("{error}; policies are enforced meanwhile, though kubelet may restart a daemon that doesn't answer")]);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn is_taken(error: &HttpError) -> bool {
    matches!(error, HttpError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_waited_for() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let mut serving = Serving::start(HttpAddress::At(address), Observer::new()).unwrap();
        serving.check();
        assert!(serving.server.is_none());
        assert_eq!(serving.problems.len(), 1);
        drop(other);
        serving.check();
        assert!(serving.server.is_some() && serving.problems.is_empty());
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn one_that_is_not_this_host_s_is_an_error() {
        let address = HttpAddress::At("192.0.2.1:20464".parse().unwrap());
        assert!(Serving::start(address, Observer::new()).is_err());
        assert!(Serving::start(HttpAddress::Off, Observer::new()).is_ok());
    }
}
