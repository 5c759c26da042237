//! Where a repository is: what `--repo` may say, and the options and credentials that belong to it,
//! from the environment and the files that everybody uses for them. Secrets never stand in a URL.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::Result;
use restow::error::Error;
#[cfg(feature = "cloud")]
use restow::store::object::{Bucket, Service};
#[cfg(feature = "sftp")]
use restow::store::sftp::Server;
use url::Url;

/// A place for a repository.
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket, or a part of one.
    #[cfg(feature = "cloud")]
    Bucket(Bucket),
    /// A folder of an SSH server.
    #[cfg(feature = "sftp")]
    Sftp(Server),
}

/// Understands a path or URL.
pub fn parse(text: &str) -> Result<Location> {
    match text.split_once("://") {
        None => folder(text),
        Some(("file", path)) => {
            // Nobody else's files: the host is empty or this one.
            let path = path.strip_prefix("localhost").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(usage("a file:// URL is file:///FOLDER"));
            }
            let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
            Ok(Location::Folder(OsString::from_vec(bytes).into()))
        }
        Some((scheme, _)) => remote(scheme, text),
    }
}

/// A path. What other programs call their repositories is none: a backup that goes to the disk that it
/// should protect would be noticed too late.
fn folder(text: &str) -> Result<Location> {
    const SCHEMES: [&str; 11] =
        ["s3", "gs", "az", "azure", "sftp", "ssh", "file", "rest", "b2", "swift", "rclone"];
    let Some((scheme, rest)) = text.split_once(':') else {
        return Ok(Location::Folder(text.into()));
    };
    if !SCHEMES.contains(&scheme) {
        return Ok(Location::Folder(text.into()));
    }
    let hint = match scheme {
        "s3" => "s3://BUCKET/PREFIX?endpoint=https://SERVER",
        "gs" => "gs://BUCKET/PREFIX",
        "az" | "azure" => "az://CONTAINER/PREFIX",
        "sftp" | "ssh" => "sftp://USER@HOST/FOLDER",
        _ => "a path, or a URL that 'restow help' names",
    };
    Err(usage(format!(
        "'{scheme}:{rest}' is no repository here: write {hint}; a folder of that name is './{text}'"
    )))
}

fn remote(scheme: &str, text: &str) -> Result<Location> {
    let (cloud, sftp) = (cfg!(feature = "cloud"), cfg!(feature = "sftp"));
    match scheme {
        #[cfg(feature = "cloud")]
        "s3" | "gs" | "az" => return bucket(text).map(Location::Bucket),
        #[cfg(feature = "sftp")]
        "sftp" => return server(text).map(Location::Sftp),
        _ => {}
    }
    let mut known = vec!["a path", "file://"];
    known.extend(["s3://", "gs://", "az://"].iter().filter(|_| cloud));
    known.extend(["sftp://"].iter().filter(|_| sftp));
    Err(usage(format!("repositories at {scheme}:// are not supported: use {}", known.join(", "))))
}

fn usage(text: impl Into<String>) -> anyhow::Error {
    Error::Usage(text.into()).into()
}

/// A URL without secrets in it.
fn parsed(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| usage(format!("not a valid URL: {error}")))?;
    if url.password().is_some() {
        return Err(usage(format!(
            "the {}:// URL holds a password: other users of this machine could read it; use the \
             environment or a credentials file",
            url.scheme()
        )));
    }
    // A part that means nothing here would be left out, and another place taken for this one.
    if url.fragment().is_some() {
        return Err(usage("a '#' in a URL is written %23"));
    }
    if text.to_ascii_lowercase().replace("%2e", ".").split('/').any(|part| part == "..") {
        return Err(usage("a URL must not hold '..'"));
    }
    Ok(url)
}

fn plain(text: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| usage("the URL is not UTF-8"))
}

#[cfg(feature = "sftp")]
fn server(text: &str) -> Result<Server> {
    let url = parsed(text)?;
    if url.query().is_some() {
        return Err(usage("an sftp:// URL takes no options: they belong into ~/.ssh/config"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| usage("no host in the sftp:// URL"))?;
    // ssh wants the address of IPv6 alone.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    // `sftp://host/path` is absolute, `sftp://host/~/path` begins at the user's folder.
    let path = plain(url.path())?;
    let path = path.strip_prefix("/~/").map_or(path.clone(), str::to_owned);
    if path.trim_matches(['/', '~']).is_empty() {
        return Err(usage("no folder in the sftp:// URL"));
    }
    let user = (!url.username().is_empty()).then(|| plain(url.username())).transpose()?;
    // As with borg and rsync: the program that makes the line, and options for it.
    let program = std::env::var("RESTOW_RSH").unwrap_or_else(|_| "ssh".to_owned());
    Ok(Server {
        host,
        port: url.port(),
        user,
        path,
        program: program.split_whitespace().map(str::to_owned).collect(),
        location: text.to_owned(),
    })
}

#[cfg(feature = "cloud")]
fn bucket(text: &str) -> Result<Bucket> {
    let url = parsed(text)?;
    let service = match url.scheme() {
        "s3" => Service::S3,
        "gs" => Service::Google,
        _ => Service::Azure,
    };
    let name = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| {
        usage(format!("no bucket in the URL: it is {}://BUCKET/PREFIX", url.scheme()))
    })?;
    if url.port().is_some() || !url.username().is_empty() {
        return Err(usage(format!(
            "a {0}:// URL is {0}://BUCKET/PREFIX, without user or port; a server of one's own is \
             named by ?endpoint=https://HOST:PORT",
            url.scheme()
        )));
    }
    let prefix = plain(url.path())?.trim_matches('/').to_owned();
    let mut location = format!("{}://{name}", url.scheme());
    if !prefix.is_empty() {
        location = format!("{location}/{prefix}");
    }
    let mut bucket = Bucket {
        service,
        name: plain(name)?,
        prefix,
        options: Vec::new(),
        endpoint: None,
        virtual_host: None,
        silence: Bucket::SILENCE,
        location,
    };
    let asked = Asked::of(&url)?;
    match service {
        Service::S3 => aws(&mut bucket, asked)?,
        Service::Google => simple(&mut bucket, asked, "GOOGLE_"),
        Service::Azure => simple(&mut bucket, asked, "AZURE_"),
    }
    if let Some(endpoint) = &bucket.endpoint {
        let host = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let host = host.ok_or_else(|| {
            usage("the endpoint is no address: it begins with https:// (or http://)")
        })?;
        if !host.username().is_empty() || host.password().is_some() {
            return Err(usage("the endpoint holds a name or password; use the environment"));
        }
        bucket.location = format!("{} at {}", bucket.location, host.authority());
    }
    Ok(bucket)
}

/// What the URL asks for.
#[cfg(feature = "cloud")]
#[derive(Default)]
struct Asked {
    endpoint: Option<String>,
    region: Option<String>,
    profile: Option<String>,
    account: Option<String>,
    virtual_host: Option<bool>,
}

#[cfg(feature = "cloud")]
impl Asked {
    fn of(url: &Url) -> Result<Self> {
        let mut asked = Self::default();
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match (&*name, url.scheme()) {
                ("endpoint", _) => asked.endpoint = Some(value),
                ("region", "s3") => asked.region = Some(value),
                ("profile", "s3") => asked.profile = Some(value),
                ("account", "az") => asked.account = Some(value),
                ("style", "s3") if value == "path" => asked.virtual_host = Some(false),
                ("style", "s3") if value == "virtual" => asked.virtual_host = Some(true),
                ("style", "s3") => return Err(usage("style is path or virtual")),
                // The value may be a secret that stands in the wrong place.
                (name, scheme) => {
                    let known = match scheme {
                        "s3" => "endpoint, region, profile and style",
                        "az" => "endpoint and account",
                        _ => "endpoint",
                    };
                    return Err(usage(format!(
                        "a {scheme}:// URL takes {known}, not '{name}'; credentials come from the \
                         environment"
                    )));
                }
            }
        }
        Ok(asked)
    }
}

/// Environment variables of one service.
#[cfg(feature = "cloud")]
fn environment(prefix: &str) -> Vec<(String, String)> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables.filter(|(name, value)| name.starts_with(prefix) && !value.is_empty()).collect()
}

#[cfg(feature = "cloud")]
fn take(options: &mut Vec<(String, String)>, name: &str) -> Option<String> {
    let at = options.iter().position(|(known, _)| known == name)?;
    Some(options.remove(at).1)
}

#[cfg(feature = "cloud")]
fn simple(bucket: &mut Bucket, asked: Asked, prefix: &str) {
    let mut options = environment(prefix);
    // Where the address comes from decides whether it may be http://.
    let names = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL"];
    let given: Vec<_> = names.iter().filter_map(|name| take(&mut options, name)).collect();
    bucket.endpoint = asked.endpoint.or_else(|| given.into_iter().next());
    // The names that Azure's own tools use.
    for (theirs, ours) in [
        ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
        ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    ] {
        if let Some(value) = take(&mut options, theirs) {
            options.push((ours.to_owned(), value));
        }
    }
    options.extend(asked.account.map(|name| ("AZURE_STORAGE_ACCOUNT_NAME".to_owned(), name)));
    bucket.options = options;
}

/// Names of what a profile may hold, there and in the environment.
#[cfg(feature = "cloud")]
const PROFILE: [(&str, &str); 5] = [
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
    ("region", "AWS_REGION"),
    ("endpoint_url", "AWS_ENDPOINT_URL"),
];

/// Keys of whatever else gives credentials.
#[cfg(feature = "cloud")]
const OTHER_SOURCES: [&str; 4] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

#[cfg(feature = "cloud")]
fn aws(bucket: &mut Bucket, asked: Asked) -> Result<()> {
    let mut options = environment("AWS_");
    let has = |options: &[(String, String)], name: &str| options.iter().any(|(n, _)| n == name);
    let key = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let profile = asked.profile.or_else(|| take(&mut options, "AWS_PROFILE"));
    if let [true, false] | [false, true] = key.map(|name| has(&options, name)) {
        let missing = if has(&options, key[0]) { key[1] } else { key[0] };
        return Err(usage(format!("{missing} is not set, though the other half of the key is")));
    }
    // Whoever names a profile wants it; one that nobody named only fills gaps.
    let keyless = !has(&options, key[0]);
    let named = profile.is_some();
    for (name, value) in profile_options(profile.as_deref(), keyless)? {
        let is_key = !matches!(name, "AWS_REGION" | "AWS_ENDPOINT_URL");
        if (is_key && (keyless || named)) || (!is_key && !has(&options, name)) {
            options.retain(|(known, _)| known != name);
            options.push((name.to_owned(), value));
        }
    }
    let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let given: Vec<_> = endpoints.iter().filter_map(|name| take(&mut options, name)).collect();
    bucket.endpoint = asked.endpoint.or_else(|| given.into_iter().next());
    bucket.virtual_host = asked.virtual_host;
    if !has(&options, "AWS_REGION") {
        let region = take(&mut options, "AWS_DEFAULT_REGION");
        options.extend(region.map(|region| ("AWS_REGION".to_owned(), region)));
    }
    options.extend(asked.region.map(|region| ("AWS_REGION".to_owned(), region)));
    let has_source = has(&options, key[0]) || OTHER_SOURCES.iter().any(|name| has(&options, name));
    let is_amazon =
        bucket.endpoint.as_deref().is_none_or(|address| address.contains(".amazonaws.com"));
    let is_off = options.iter().any(|(name, value)| {
        name == "AWS_EC2_METADATA_DISABLED" && value.eq_ignore_ascii_case("true")
    });
    // Elsewhere there is no machine role that could stand in.
    if !has_source && (!is_amazon || is_off) {
        return Err(usage(format!(
            "no credentials for {}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or put them into \
             profile '{}' of ~/.aws/credentials",
            bucket.location,
            profile.as_deref().unwrap_or("default")
        )));
    }
    bucket.options = options;
    Ok(())
}

/// What a profile says, under the names of environment variables.
#[cfg(feature = "cloud")]
fn profile_options(named: Option<&str>, keyless: bool) -> Result<Vec<(&'static str, String)>> {
    let profile = named.unwrap_or("default");
    let section = match profile {
        "default" => "default".to_owned(),
        other => format!("profile {other}"),
    };
    let mut found = Vec::new();
    let mut exists = false;
    for (variable, file, section) in [
        ("AWS_CONFIG_FILE", "config", section.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ] {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws").join(file));
        let Some(path) = std::env::var_os(variable).map(PathBuf::from).or_else(home) else {
            continue;
        };
        if !path.exists() {
            continue;
        }
        // The parser's error quotes no line.
        let read = ini::Ini::load_from_file_noescape(&path).map_err(|error| match error {
            ini::Error::Io(source) => anyhow::Error::from(Error::Io {
                action: "read",
                path: path.display().to_string(),
                source,
            }),
            ini::Error::Parse(error) => usage(format!(
                "{} is no valid file of profiles: line {}, column {}",
                path.display(),
                error.line + 1,
                error.col + 1
            )),
        })?;
        let Some(section) = read.section(Some(section)) else { continue };
        exists = true;
        for (theirs, ours) in PROFILE {
            found.extend(section.get(theirs).map(|value| (ours, value.to_owned())));
        }
        let helpers = ["credential_process", "sso_session", "sso_start_url", "role_arn"];
        let helper = helpers.iter().find(|name| section.contains_key(**name));
        if let (Some(helper), true) = (helper, (named.is_some() || keyless) && !has_key(&found)) {
            return Err(usage(format!(
                "profile '{profile}' in {} uses {helper}, which restow does not: \
                 'aws configure export-credentials --format env' prints what to export",
                path.display()
            )));
        }
    }
    if named.is_some() && !exists {
        return Err(usage(format!(
            "no profile '{profile}' in ~/.aws/config or ~/.aws/credentials"
        )));
    }
    Ok(found)
}

#[cfg(feature = "cloud")]
fn has_key(found: &[(&'static str, String)]) -> bool {
    found.iter().any(|(name, _)| *name == "AWS_ACCESS_KEY_ID")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse(text).err().unwrap_or_else(|| panic!("{text} is understood")).to_string()
    }

    fn path(text: &str) -> PathBuf {
        match parse(text).unwrap() {
            Location::Folder(path) => path,
            _ => panic!("{text} is no folder"),
        }
    }

    #[test]
    fn folders_are_folders() {
        assert_eq!(path("/srv/a b"), PathBuf::from("/srv/a b"));
        assert_eq!(path("file:///srv/a%20b"), PathBuf::from("/srv/a b"));
        assert_eq!(path("file://localhost/srv"), PathBuf::from("/srv"));
        assert_eq!(path("./s3:x"), PathBuf::from("./s3:x"));
        assert_eq!(path("odd:name"), PathBuf::from("odd:name"));
    }

    #[test]
    fn what_means_another_place_is_no_folder() {
        for text in ["sftp:me@host:/srv/repo", "s3:s3.amazonaws.com/b/x", "rest:h/x"] {
            assert!(problem(text).contains("is no repository here"), "{text}");
        }
        assert!(problem("file://host/x").contains("file:///FOLDER"));
    }

    #[test]
    fn no_part_of_a_url_is_passed_over() {
        assert!(problem("sftp://h/a#1").contains("%23"));
        assert!(problem("s3://b/a/%2e%2E/x").contains("'..'"));
        assert!(problem("s3://localhost:9000/b/p").contains("endpoint"));
        assert!(problem("s3://KEY@b/p").contains("endpoint"));
        #[cfg(feature = "sftp")]
        match parse("sftp://[::1]:2222/x").unwrap() {
            Location::Sftp(server) => assert_eq!((&*server.host, server.port), ("::1", Some(2222))),
            _ => panic!("no server"),
        }
    }
}
