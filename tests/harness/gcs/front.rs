//! The XML API, in front of a server that has the JSON API. Each answer is as Google's documentation has it:
//! <https://cloud.google.com/storage/docs/xml-api/overview>

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::sign_in::{Accounts, form};
use crate::http_client::{self, Answer, Connector, Failure};
use crate::http_server::{self, Body, Server};
use crate::pki::Identity;
use crate::store::form_encoded;

/// A page of a listing, as long as Google's.
const PAGE: &str = "1000";

/// All parts but the last are at least so large.
const SMALLEST_PART: usize = 5 << 20;

/// A request as the front has seen it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
}

struct Upload {
    bucket: String,
    key: String,
    parts: BTreeMap<u32, Bytes>,
}

pub(super) struct Front {
    pub(super) accounts: Accounts,
    behind: Connector,
    uploads: Mutex<HashMap<String, Upload>>,
    begun: AtomicUsize,
    buckets: Mutex<HashSet<String>>,
    asked: Mutex<Vec<Asked>>,
}

pub(super) fn serve(front: &Arc<Front>) -> Server {
    serve_with(front, None)
}

pub(super) fn serve_with(front: &Arc<Front>, identity: Option<&Identity>) -> Server {
    let front = Arc::clone(front);
    Server::start_with(identity, move || {
        let front = Arc::clone(&front);
        Box::new(move |request| {
            let front = Arc::clone(&front);
            Box::pin(async move { front.answer(request).await })
        })
    })
}

/// An answer in the making.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Reply {
    fn of(status: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", "application/xml; charset=UTF-8".to_owned())];
        Self {
            status,
            headers,
            body: body.into(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self::of(status, body)
    }
}

/// What `%xx` stands for.
pub(super) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn tag_of(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = digest
        .as_ref()
        .iter()
        .take(16)
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
    format!("\"{hex}\"")
}

impl Front {
    pub(super) fn new(behind: Connector) -> Self {
        Self {
            accounts: Accounts::new(),
            behind,
            uploads: Mutex::default(),
            begun: AtomicUsize::new(0),
            buckets: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn uploads(&self, bucket: &str) -> Vec<String> {
        let uploads = self.uploads.lock().unwrap();
        let of = uploads.values().filter(|upload| upload.bucket == bucket);
        of.map(|upload| upload.key.clone()).collect()
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        let asked = Asked {
            method: parts.method,
            target: parts.uri.to_string(),
            headers: parts.headers,
        };
        self.asked.lock().unwrap().push(asked.clone());
        let body = body.collect().await?.to_bytes();
        let path = asked.target.split('?').next().unwrap_or_default();
        let signed_in = self
            .accounts
            .answer(&asked.method, path, &asked.headers, &body);
        if let Some((status, json)) = signed_in {
            let answer = Response::builder().status(status);
            let answer = answer.header("content-type", "application/json");
            return Ok(answer.body(http_server::full(json.to_string()))?);
        }
        let is_known = self.accounts.knows(&asked.headers)
            || self
                .accounts
                .has_signed_address(&asked.method, &asked.target);
        let reply = if is_known {
            self.of_bucket(&asked, body).await?
        } else {
            Reply::error(401, "AuthenticationRequired", "Authentication required.")
        };
        let mut answer = Response::builder().status(reply.status);
        for (name, value) in reply.headers {
            answer = answer.header(name, value);
        }
        // The length of what a HEAD leaves out is among the headers.
        let body = if asked.method == Method::HEAD {
            Bytes::new()
        } else {
            reply.body
        };
        Ok(answer.body(http_server::full(body))?)
    }

    async fn of_bucket(&self, asked: &Asked, body: Bytes) -> Result<Reply, Failure> {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let query = form(query.as_bytes());
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (decoded(bucket), decoded(key));
        if !self.has_bucket(&bucket).await? {
            return Ok(Reply::error(
                404,
                "NoSuchBucket",
                "The specified bucket does not exist.",
            ));
        }
        if key.is_empty() {
            return self.list(&bucket, &query).await;
        }
        let upload = query.get("uploadId");
        match (&asked.method, upload) {
            (&Method::POST, None) if query.contains_key("uploads") => Ok(self.begin(&bucket, &key)),
            (&Method::PUT, Some(id)) => Ok(self.part(id, &key, &query, body)),
            (&Method::POST, Some(id)) => self.complete(&bucket, &key, id, &body).await,
            (&Method::DELETE, Some(id)) => {
                let known = self.uploads.lock().unwrap().remove(id).is_some();
                Ok(if known {
                    Reply::of(204, "")
                } else {
                    no_such_upload()
                })
            }
            (&Method::PUT, None) => {
                let condition = asked.headers.get("x-goog-if-generation-match");
                let condition = condition.and_then(|value| value.to_str().ok());
                self.put(&bucket, &key, body, condition).await
            }
            (&Method::DELETE, None) => {
                let path = format!("/storage/v1/b/{bucket}/o/{}", form_encoded(&key));
                let answer = self.json(Method::DELETE, &path, Bytes::new()).await?;
                Ok(if answer.status == 404 {
                    no_such_key()
                } else {
                    Reply::of(204, "")
                })
            }
            (&Method::GET | &Method::HEAD, None) => self.read(asked, &bucket, &key).await,
            _ => Ok(Reply::error(400, "InvalidArgument", "Invalid argument.")),
        }
    }

    /// Asked once of each: none is ever removed.
    async fn has_bucket(&self, bucket: &str) -> Result<bool, Failure> {
        if self.buckets.lock().unwrap().contains(bucket) {
            return Ok(true);
        }
        let path = format!("/storage/v1/b/{bucket}");
        let is_there = self.json(Method::GET, &path, Bytes::new()).await?.status != 404;
        if is_there {
            self.buckets.lock().unwrap().insert(bucket.to_owned());
        }
        Ok(is_there)
    }

    async fn json(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.behind.authority())
            .header("content-type", "application/octet-stream")
            .body(Full::new(body))?;
        http_client::ask(&self.behind, request).await
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        condition: Option<&str>,
    ) -> Result<Reply, Failure> {
        let mut path = format!(
            "/upload/storage/v1/b/{bucket}/o?uploadType=media&name={}",
            form_encoded(key)
        );
        if let Some(generation) = condition {
            path += &format!("&ifGenerationMatch={generation}");
        }
        let answer = self.json(Method::POST, &path, body).await?;
        if answer.status == 412 {
            let message = "At least one of the pre-conditions you specified did not hold.";
            return Ok(Reply::error(412, "PreconditionFailed", message));
        }
        if !answer.is_success() {
            return Ok(Reply::error(500, "InternalError", &escaped(&answer.text())));
        }
        let object = answer.json();
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        Ok(Reply::of(200, "")
            .with("etag", format!("\"{}\"", text("etag").trim_matches('"')))
            .with("x-goog-generation", text("generation")))
    }

    async fn read(&self, asked: &Asked, bucket: &str, key: &str) -> Result<Reply, Failure> {
        let mut request = Request::builder()
            .method(&asked.method)
            .uri(format!("/{bucket}/{}", form_encoded(key)))
            .header("host", self.behind.authority());
        if let Some(range) = asked.headers.get("range") {
            request = request.header("range", range);
        }
        let answer = http_client::ask(&self.behind, request.body(Full::default())?).await?;
        if answer.status == 404 {
            return Ok(no_such_key());
        }
        let mut reply = Reply {
            status: answer.status,
            headers: Vec::new(),
            body: answer.body,
        };
        for name in [
            "etag",
            "last-modified",
            "content-type",
            "content-range",
            "content-length",
            "x-goog-generation",
        ] {
            if let Some(value) = answer
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
            {
                reply = reply.with(name, value);
            }
        }
        Ok(reply)
    }

    /// <https://cloud.google.com/storage/docs/xml-api/get-bucket-list>
    async fn list(&self, bucket: &str, query: &HashMap<String, String>) -> Result<Reply, Failure> {
        let mut path = format!("/storage/v1/b/{bucket}/o?maxResults={PAGE}");
        for (name, theirs) in [
            ("prefix", "prefix"),
            ("delimiter", "delimiter"),
            ("continuation-token", "pageToken"),
            ("start-after", "startOffset"),
        ] {
            if let Some(value) = query.get(name) {
                path += &format!("&{theirs}={}", form_encoded(value));
            }
        }
        let page = self.json(Method::GET, &path, Bytes::new()).await?.json();
        let all = |name: &str| page[name].as_array().cloned().unwrap_or_default();
        let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        for item in all("items") {
            let text = |name: &str| escaped(item[name].as_str().unwrap_or_default());
            // The JSON API's offset is inclusive.
            if query
                .get("start-after")
                .is_some_and(|after| item["name"] == after.as_str())
            {
                continue;
            }
            xml += &format!(
                "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
                text("name"),
                text("generation"),
                text("updated"),
                text("etag").trim_matches('"'),
                text("size"),
            );
        }
        for prefix in all("prefixes") {
            let prefix = escaped(prefix.as_str().unwrap_or_default());
            xml += &format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
        }
        if let Some(token) = page["nextPageToken"]
            .as_str()
            .filter(|token| !token.is_empty())
        {
            let token = escaped(token);
            xml += &format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
            );
        }
        Ok(Reply::of(200, xml + "</ListBucketResult>"))
    }

    /// <https://cloud.google.com/storage/docs/xml-api/post-object-multipart>
    fn begin(&self, bucket: &str, key: &str) -> Reply {
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        let id = format!("upload-{number}");
        let mut uploads = self.uploads.lock().unwrap();
        let upload = Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            parts: BTreeMap::new(),
        };
        uploads.insert(id.clone(), upload);
        Reply::of(
            200,
            format!(
                "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
                escaped(key)
            ),
        )
    }

    fn part(&self, id: &str, key: &str, query: &HashMap<String, String>, body: Bytes) -> Reply {
        let number = query
            .get("partNumber")
            .and_then(|number| number.parse().ok());
        let mut uploads = self.uploads.lock().unwrap();
        let upload = uploads.get_mut(id).filter(|upload| upload.key == key);
        match (upload, number) {
            (None, _) => no_such_upload(),
            (Some(upload), Some(number @ 1..=10_000)) => {
                let tag = tag_of(&body);
                upload.parts.insert(number, body);
                Reply::of(200, "").with("etag", tag)
            }
            _ => Reply::error(400, "InvalidArgument", "Invalid argument."),
        }
    }

    /// <https://cloud.google.com/storage/docs/xml-api/post-object-complete>
    async fn complete(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        body: &Bytes,
    ) -> Result<Reply, Failure> {
        let listed = String::from_utf8_lossy(body).replace("&quot;", "\"");
        let between = |text: &str, tag: &str| {
            let (_, rest) = text.split_once(&format!("<{tag}>"))?;
            Some(rest.split_once('<')?.0.to_owned())
        };
        let asked: Vec<(Option<u32>, Option<String>)> = listed
            .split("<Part>")
            .skip(1)
            .map(|part| {
                let number = between(part, "PartNumber").and_then(|number| number.parse().ok());
                (number, between(part, "ETag"))
            })
            .collect();
        let whole = {
            let uploads = self.uploads.lock().unwrap();
            let Some(upload) = uploads.get(id).filter(|upload| upload.key == key) else {
                return Ok(no_such_upload());
            };
            let mut whole = BytesMut::new();
            for (at, (number, tag)) in asked.iter().enumerate() {
                let part = number.and_then(|number| upload.parts.get(&number));
                let fits = part.filter(|part| tag.as_ref() == Some(&tag_of(part)));
                let Some(part) = fits else {
                    let message = "One or more of the specified parts could not be found.";
                    return Ok(Reply::error(400, "InvalidPart", message));
                };
                if part.len() < SMALLEST_PART && at + 1 < asked.len() {
                    let message = "Your proposed upload is smaller than the minimum size.";
                    return Ok(Reply::error(400, "EntityTooSmall", message));
                }
                whole.extend_from_slice(part);
            }
            whole.freeze()
        };
        let tag = tag_of(&whole);
        let put = self.put(bucket, key, whole, None).await?;
        if put.status != 200 {
            return Ok(put);
        }
        self.uploads.lock().unwrap().remove(id);
        Ok(Reply::of(
            200,
            format!(
                "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{}</Key><ETag>{tag}</ETag></CompleteMultipartUploadResult>",
                escaped(key)
            ),
        ))
    }
}

fn no_such_key() -> Reply {
    Reply::error(404, "NoSuchKey", "The specified key does not exist.")
}

fn no_such_upload() -> Reply {
    let message = "The specified upload does not exist.";
    Reply::error(404, "NoSuchUpload", message)
}
