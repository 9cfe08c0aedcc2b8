//! Certificates for clusters and stores, made in memory.
//!
//! Every authority is new: nothing a test trusts is trusted by anything else.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: String,
}

/// The key that signs tokens of service accounts, in PEM.
pub struct SigningKey {
    pub private: String,
    pub public: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).unwrap().pem();
        let pem = key.serialize_pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            key: pem,
        }
    }

    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// A server's certificate for these names and addresses.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Identity {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(CertificateParams::new(hosts).unwrap(), name, &[], usages)
    }

    /// A certificate for both ends of a connection: members of etcd are each other's clients, and each is its own.
    pub fn peer(&self, name: &str, hosts: &[&str]) -> Identity {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(CertificateParams::new(hosts).unwrap(), name, &[], usages)
    }

    /// A client's certificate: a user and the groups it is in.
    pub fn client(&self, user: &str, groups: &[&str]) -> Identity {
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(CertificateParams::default(), user, groups, usages)
    }

    /// A client's certificate that has been of no use for years.
    pub fn expired_client(&self, user: &str, groups: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, user, groups, usages)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        groups: &[&str],
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Identity {
        let key = KeyPair::generate().unwrap();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        // The library keeps one entry per type; spelling the type in two ways makes room for two groups.
        let spellings = [
            DnType::OrganizationName,
            DnType::CustomDnType(vec![2, 5, 4, 10]),
        ];
        assert!(
            groups.len() <= spellings.len(),
            "a certificate carries two groups"
        );
        for (spelling, &group) in spellings.into_iter().zip(groups) {
            params.distinguished_name.push(spelling, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        Identity {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl SigningKey {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            private: key.serialize_pem(),
            public: key.public_key_pem(),
        }
    }
}

impl Default for SigningKey {
    fn default() -> Self {
        Self::new()
    }
}
