//! An issuer of certificates, and what it has issued.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// An issuer that nobody trusts but who is told to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
    serial: u64,
}

/// Seconds since 1970.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate, by which it is known.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of `holder` for these names, with this number, that is valid until a Unix second.
    pub fn issue(&self, holder: &str, names: &[&str], serial: u64, until: u64) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, holder);
        params.serial_number = Some(serial.into());
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_time() - DAY);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem(), serial }
    }

    /// One that is valid for a day.
    pub fn issue_for(&self, holder: &str, names: &[&str]) -> Issued {
        let serial = names.iter().flat_map(|name| name.bytes()).map(u64::from).sum();
        self.issue(holder, names, serial, unix_time() + DAY)
    }

    /// The list of what it has taken back: these.
    pub fn revoke(&self, revoked: &[&Issued]) -> String {
        let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_time() - 60);
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.into(),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::from_secs(DAY),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Issued {
    /// Writes both into files, whose paths it returns as one word for `tls=` and `--client-cert`.
    pub fn write(&self, dir: &Path, name: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let [certificate, key] = ["pem", "key"].map(|kind| dir.join(format!("{name}.{kind}")));
        std::fs::write(&certificate, &self.certificate).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!("{},{}", certificate.display(), key.display())
    }
}
