//! The audit log.
//!
//! Always true: an entry is written in the commit of what it tells; entries are dropped by age, whole ranges at a time, and
//! never changed. Not here: what is told (`domain::audit`).

use super::codec;
use super::keys::Key;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::audit::{Act, Actor, Entry};
use crate::domain::id::{AuditId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::domain::workspace::Workspace;
use crate::error::Result;

/// A range of a table's keys.
type Range = (Table, Vec<u8>, Vec<u8>);

impl Rows {
    /// A workspace's entries before `before`, newest first, at most `limit`.
    pub fn audit(&self, workspace: WorkspaceNo, before: Option<AuditId>, limit: usize) -> Result<Vec<Entry>> {
        let prefix = Key::workspace(workspace);
        let end = match before {
            Some(id) => prefix.clone().bytes(&id.0).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut all = Vec::new();
        self.walk(Table::Audit, prefix.as_ref(), &end, Walk::Backward, |_, value| {
            all.push(codec::decode(value)?);
            Ok(all.len() < limit)
        })?;
        Ok(all)
    }

    /// What is past its time of the audit log and of erasures. Ids begin with the time they were drawn at.
    pub(super) fn audit_past(&self, before: Millis) -> Result<Vec<Range>> {
        let mut ranges = Vec::new();
        self.every_object::<Workspace>(|workspace| {
            let prefix = Key::workspace(workspace.no);
            let end = prefix.clone().bytes(&before.0.to_be_bytes()[2..]).as_ref().to_vec();
            for table in [Table::Audit, Table::Erasures] {
                let mut some = false;
                self.walk(table, prefix.as_ref(), &end, Walk::Forward, |_, _| {
                    some = true;
                    Ok(false)
                })?;
                ranges.extend(some.then(|| (table, prefix.as_ref().to_vec(), end.clone())));
            }
            Ok(())
        })?;
        Ok(ranges)
    }
}

impl Tx<'_> {
    /// Writes an entry.
    pub fn put_audit(&mut self, workspace: WorkspaceNo, actor: Actor, act: Act) -> Result<()> {
        let entry = Entry { id: AuditId(self.fresh_id()?), workspace, at: self.now(), actor, act };
        self.put(Table::Audit, Key::workspace(workspace).bytes(&entry.id.0), &entry)
    }
}
