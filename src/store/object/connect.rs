//! From a bucket's name and options to a client. Reads no environment: options come from the caller.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::outcome::{self, ListeningConnector};
use crate::store::StoreError;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// Who keeps the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// S3, or a server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// A place in a bucket.
#[derive(Clone)]
pub struct Bucket {
    /// Who keeps it.
    pub service: Service,
    /// Name of the bucket or container.
    pub name: String,
    /// Path inside of it; may be empty.
    pub prefix: String,
    /// Names and values as environment variables have them (`AWS_REGION`, …): credentials and the
    /// like. Later ones win; names that the service does not know are passed over.
    pub options: Vec<(String, String)>,
    /// Address of the server, where it is not the service's own.
    pub endpoint: Option<String>,
    /// Whether the bucket's name is a part of the server's name and not of the path; `None` for what
    /// is usual with this server.
    pub virtual_host: Option<bool>,
    /// How long the server may be silent.
    pub silence: Duration,
    /// What the place is called in messages.
    pub location: String,
}

impl Bucket {
    /// Long enough for a busy server.
    pub const SILENCE: Duration = Duration::from_secs(60);
}

/// A client for the bucket. It never sends a request twice by itself: who tries again must know what
/// a first attempt may have done.
pub fn connect(bucket: &Bucket) -> Result<Arc<dyn ObjectStore>, StoreError> {
    // One provider for the whole process; another one that was installed before does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let is_plain = bucket.endpoint.as_deref().is_some_and(|end| end.starts_with("http://"));
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT)
        .with_allow_http(is_plain)
        .with_user_agent(object_store::HeaderValue::from_static(concat!(
            "restow/",
            env!("CARGO_PKG_VERSION")
        )));
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let connected = match bucket.service {
        Service::S3 => s3(bucket, client, once),
        Service::Google => google(bucket, client, once),
        Service::Azure => azure(bucket, client, once),
    };
    connected.map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, outcome::words(&error));
        outcome::failed("open", &bucket.location, source)
    })
}

/// The options that a service knows.
fn known<K: FromStr>(bucket: &Bucket) -> impl Iterator<Item = (K, &str)> {
    let options = bucket.options.iter();
    options.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, &**value)))
}

fn s3(
    bucket: &Bucket,
    client: ClientOptions,
    retry: RetryConfig,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new();
    for (key, value) in known::<AmazonS3ConfigKey>(bucket) {
        builder = builder.with_config(key, value);
    }
    // Amazon wants its buckets in the name of the server, where that makes a valid name.
    let is_virtual =
        bucket.virtual_host.unwrap_or(bucket.endpoint.is_none() && !bucket.name.contains('.'));
    if let Some(endpoint) = &bucket.endpoint {
        let endpoint = match endpoint.split_once("://") {
            Some((scheme, host)) if is_virtual => format!("{scheme}://{}.{host}", bucket.name),
            _ => endpoint.clone(),
        };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    let store = builder
        .with_bucket_name(&bucket.name)
        .with_virtual_hosted_style_request(is_virtual)
        .with_conditional_put(object_store::aws::S3ConditionalPut::ETagMatch)
        // One request an object: errors are then those of that object.
        .with_disable_bulk_delete(true)
        .with_client_options(client)
        .with_retry(retry)
        .with_http_connector(ListeningConnector::default())
        .build()?;
    Ok(Arc::new(store))
}

fn google(
    bucket: &Bucket,
    client: ClientOptions,
    retry: RetryConfig,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in known::<GoogleConfigKey>(bucket) {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    let store = builder
        .with_bucket_name(&bucket.name)
        .with_client_options(client)
        .with_retry(retry)
        .with_http_connector(ListeningConnector::default())
        .build()?;
    Ok(Arc::new(store))
}

fn azure(
    bucket: &Bucket,
    client: ClientOptions,
    retry: RetryConfig,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in known::<AzureConfigKey>(bucket) {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_config(AzureConfigKey::Endpoint, endpoint);
    }
    let store = builder
        .with_container_name(&bucket.name)
        .with_client_options(client)
        .with_retry(retry)
        .with_http_connector(ListeningConnector::default())
        .build()?;
    Ok(Arc::new(store))
}
