//! Why a connection was not made: words for metrics, for logs, and for whoever must mend it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError};

use crate::metrics::TlsMetrics;

/// The part that this sync has in a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// It was called.
    Server,
    /// It called.
    Client,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Why there is no connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// No certificate was shown.
    NoCertificate,
    /// The certificate is not of an authority that the other side knows.
    UnknownAuthority,
    /// The certificate lacks the cluster's name.
    Name,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// TLS 1.3 is not spoken at both ends.
    Protocol,
    /// Whoever refuses has no certificate yet.
    NoCredentials,
    /// The other side was too slow: it hangs, or nothing gets through.
    TooSlow,
    /// Anything else, as a handshake that is broken off.
    Other,
}

impl Reason {
    /// Every reason, so that each has its metric from the start.
    pub const ALL: [Self; 8] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::Name,
        Self::Expired,
        Self::Protocol,
        Self::NoCredentials,
        Self::TooSlow,
        Self::Other,
    ];

    /// The word for it in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::Name => "name",
            Self::Expired => "expired",
            Self::Protocol => "protocol",
            Self::NoCredentials => "no_credentials",
            Self::TooSlow => "too_slow",
            Self::Other => "other",
        }
    }

    const fn said(self) -> &'static str {
        match self {
            Self::NoCertificate => "no certificate was shown",
            Self::UnknownAuthority => {
                "the certificate is not signed by an authority that who refuses it believes, which \
                 is in its ca.crt or the Secret of its authority"
            }
            Self::Name => "the certificate does not bear the name of the cluster",
            Self::Expired => "the certificate has expired, or is not valid yet",
            Self::Protocol => {
                "TLS 1.3 is not spoken at both ends; do both have the same --tls, and is it the \
                 exchange port?"
            }
            Self::NoCredentials => {
                "who refuses has no certificate yet: its log says what keeps it from one"
            }
            Self::TooSlow | Self::Other => "the handshake failed",
        }
    }

    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::PeerMisbehaved(_)
            | rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. }
            | rustls::Error::NoApplicationProtocol => Self::Protocol,
            _ => Self::Other,
        }
    }

    const fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // A bad signature: an authority of the same name that has another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownAuthority
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::Name
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            _ => Self::Other,
        }
    }

    /// What the other side, which is rustls too, says with the alert.
    const fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::NoCertificate,
            AlertDescription::UnknownCA | AlertDescription::DecryptError => Self::UnknownAuthority,
            AlertDescription::BadCertificate => Self::Name,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnexpectedMessage
            | AlertDescription::DecodeError => Self::Protocol,
            AlertDescription::AccessDenied => Self::NoCredentials,
            _ => Self::Other,
        }
    }
}

/// Who did not want the other.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum By {
    /// This sync.
    Us,
    /// The peer.
    Peer,
}

/// A connection that was not made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// Who did not want the other.
    pub by: By,
    /// What is known beyond that.
    pub detail: String,
}

impl Refused {
    /// What an error of a TLS stream means.
    pub(super) fn of(error: &io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>());
        Self {
            reason: tls.map_or(Reason::Other, Reason::of),
            by: match tls {
                Some(rustls::Error::AlertReceived(_)) => By::Peer,
                _ => By::Us,
            },
            detail: error.to_string(),
        }
    }

    /// The other end speaks no TLS, or speaks it to one who does not.
    pub(super) fn protocol(detail: &str) -> Self {
        Self {
            reason: Reason::Protocol,
            by: By::Us,
            detail: detail.to_owned(),
        }
    }

    /// There is nothing to shake hands with yet.
    pub(super) fn no_credentials() -> Self {
        Self {
            reason: Reason::NoCredentials,
            by: By::Us,
            detail: "the authority of the release is not known here".to_owned(),
        }
    }

    /// It took too long.
    pub(super) fn too_slow() -> Self {
        Self {
            reason: Reason::TooSlow,
            by: By::Us,
            detail: "it took too long".to_owned(),
        }
    }

    /// The refusal that led to an error, if one did.
    pub fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // An `io::Error` is transparent: its source is that of the error in it.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(|error| error.get_ref()?.downcast_ref());
            if let Some(refused) = error.downcast_ref().or(inner) {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.by {
            By::Us => "the peer was refused",
            By::Peer => "the peer refused this sync",
        };
        write!(f, "{who}: {} ({})", self.reason.said(), self.detail)
    }
}

impl Error for Refused {}

/// Counts who was not let in, and says so.
#[derive(Debug)]
pub struct Refusals {
    metrics: TlsMetrics,
}

impl Refusals {
    /// None yet.
    pub const fn new(metrics: TlsMetrics) -> Self {
        Self { metrics }
    }

    /// Notes that a connection from `peer` was not made.
    pub(super) fn note(&self, peer: Option<SocketAddr>, refused: &Refused) {
        self.metrics.refused(Side::Server, refused.reason);
        let reason = refused.reason.word();
        // Not the port, which is another for each call.
        let peer = peer.map(|peer| tracing::field::display(peer.ip()));
        let error = refused.to_string();
        tracing::warn!(peer, reason, error, "no connection from a peer");
    }
}
