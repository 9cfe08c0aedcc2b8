//! A mover's listing for who wants to see what stands, and no content.

use std::io::Read;

use super::super::entry::{Entry, Order};
use super::frame::Frame;
use crate::error::{Error, Result};

/// Shows every entry of a listing, checked and in order, to its end.
///
/// # Errors
/// A listing that is cut, that could not read all, or is none; and what `show` says.
pub fn listed(from: &mut dyn Read, show: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
    let mut order = Order::default();
    let mut count = 0;
    loop {
        match Frame::read(from)? {
            Some(Frame::Entry(entry)) => {
                entry.check()?;
                order.take(&entry)?;
                count += 1;
                show(&entry)?;
            }
            Some(Frame::Trouble(trouble)) => {
                return Err(Error::other(format!(
                    "{} can not be looked at: {}",
                    trouble.path, trouble.what
                )));
            }
            Some(Frame::Vanished(path)) => {
                return Err(Error::other(format!(
                    "{path} was deleted while it was listed"
                )));
            }
            Some(Frame::End(ended)) if ended.count == count => return Ok(()),
            Some(Frame::End(_)) | None => {
                return Err(Error::other(
                    "the listing ended before everything was listed",
                ));
            }
            Some(_) => return Err(Error::corrupt("the mover lists what is no entry")),
        }
    }
}
