//! The table in DynamoDB.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, KeysAndAttributes, Put, TransactWriteItem};
use domain::ids::{InstanceId, PoolName};
use domain::log::{Event, Stream, Transaction};
use domain::policy::unread::ranges;
use domain::state::{BootItem, Item, Key, StoredReport, UnreadSlots, boot_key};
use engine::ports::{CommitError, Reading, Store, StoreError};

use crate::aws::{CallError, ErrorKind};
use crate::batch_get::{FIRST_WAIT, KEYS_PER_CALL, LONGEST_WAIT, batch_get};
use crate::reports::ReportsTable;

/// The most pages, of 1 MB each, that the reading of a partition has. A partition with more open jobs, slots and batches is
/// a sign of a fault.
const MAX_PAGES: usize = 100;

/// The most jobs that no pool accepts that one sweep reads: of the newest, and as many of the oldest.
const MAX_UNROUTED: usize = 1000;

/// GitHub's ids of jobs, by which they are sorted, increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanOrder {
    OldestFirst,
    NewestFirst,
}

type Attributes = HashMap<String, AttributeValue>;

/// The main table, the boot table and the reports table.
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    name: String,
    boot: String,
    reports: Option<ReportsTable>,
}

impl Table {
    /// The tables with these names, without a reports table. Makes no call.
    pub fn new(aws: &SdkConfig, name: String, boot: String) -> Self {
        Self { client: Client::new(aws), name, boot, reports: None }
    }

    /// The same tables, and this one for the machines' reports.
    #[must_use]
    pub fn with_reports(self, reports: Option<ReportsTable>) -> Self {
        Self { reports, ..self }
    }

    /// Name of the main table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest events of one stream, newest first. A month of a busy pool has hundreds of megabytes.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an event has an unknown format.
    pub async fn events(&self, stream: &Stream, newest: usize) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        let mut from = None;
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.name)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(stream.pk()))
                .scan_index_forward(false)
                .limit(i32::try_from(newest - events.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(from.take())
                .send()
                .await
                .map_err(failed)?;
            for attributes in page.items.unwrap_or_default() {
                let event = serde_dynamo::from_item(attributes);
                events.push(event.map_err(|error| {
                    unreadable(format!("an event of {} has an unknown form: {error}", stream.pk()))
                })?);
            }
            from = page.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() || events.len() >= newest {
                return Ok(events);
            }
        }
    }

    /// Parses an item. None if the key is not one of Drover's: such an item is left alone.
    fn parse(attributes: Attributes) -> Result<Option<Item>, Unreadable> {
        let text = |name: &str| attributes.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default();
        let (pk, sk) = (text("pk"), text("sk"));
        let Ok(key) = Key::parse(&pk, &sk) else {
            tracing::warn!("the item {pk} / {sk} is unknown and left alone");
            return Ok(None);
        };
        let attributes = serde_dynamo::AttributeValue::M(serde_dynamo::Item::from(attributes).into());
        let item = Item::deserialize(&key, serde_dynamo::Deserializer::from_attribute_value(attributes));
        item.map(Some)
            .map_err(|error| Unreadable { message: format!("the item {key} has an unknown form: {error}"), key })
    }

    /// Adds an item to a reading. An unreadable one is left out if the reading may do without it.
    fn add(
        reading: &mut Reading,
        attributes: Attributes,
        may_be_left_out: impl FnOnce(&Key) -> bool,
    ) -> Result<(), StoreError> {
        match Self::parse(attributes) {
            Ok(item) => reading.items.extend(item),
            Err(Unreadable { key, message }) if may_be_left_out(&key) => {
                tracing::error!("{message}: it is left out");
                reading.unreadable.push(key);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads the items of these keys. Those that may be left out are, if they cannot be read.
    async fn read(&self, keys: &[Key], may_be_left_out: fn(&Key) -> bool) -> Result<Reading, StoreError> {
        let mut reading = Reading::default();
        for some in keys.chunks(KEYS_PER_CALL) {
            let all = KeysAndAttributes::builder()
                .set_keys(Some(some.iter().map(Self::key).collect()))
                .consistent_read(true)
                .build();
            for attributes in batch_get(&self.client, &self.name, build(all)?).await? {
                Self::add(&mut reading, attributes, may_be_left_out)?;
            }
        }
        Ok(reading)
    }

    /// Reads a part of a pool's partition.
    async fn query(&self, pool: &PoolName, part: Sorted<'_>) -> Result<Reading, StoreError> {
        let (condition, keys) = match part {
            Sorted::Everywhere => ("pk = :pk", vec![]),
            Sorted::Before(sk) => ("pk = :pk AND sk < :sk", vec![(":sk", sk)]),
            Sorted::Between(first, last) => {
                ("pk = :pk AND sk BETWEEN :first AND :last", vec![(":first", first), (":last", last)])
            }
        };
        let pk = Key::pool_pk(pool);
        let values = keys.into_iter().chain([(":pk", pk.as_str())]);
        let values: Attributes =
            values.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned()))).collect();
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .consistent_read(true);
        let mut pages = query.into_paginator().send();
        let mut reading = Reading::default();
        for _ in 0..=MAX_PAGES {
            let Some(page) = pages.next().await else { return Ok(reading) };
            for attributes in page.map_err(failed)?.items.unwrap_or_default() {
                Self::add(&mut reading, attributes, Key::is_dispensable)?;
            }
        }
        Err(StoreError::new(format!("pool {pool} has more than {MAX_PAGES} MB of open items")))
    }

    /// Reads the first of the jobs that no pool accepts.
    async fn some_unrouted(&self, order: ScanOrder) -> Result<Reading, StoreError> {
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(Key::UNROUTED_PK.to_owned()))
            .consistent_read(true)
            .scan_index_forward(order == ScanOrder::OldestFirst);
        // A page ends after 1 MB.
        let mut items = query.into_paginator().items().send();
        let mut reading = Reading::default();
        for _ in 0..MAX_UNROUTED {
            let Some(attributes) = items.next().await else { break };
            Self::add(&mut reading, attributes.map_err(failed)?, |_| true)?;
        }
        Ok(reading)
    }

    /// Reads the slots of these versions, which have the same number of digits.
    async fn slots(&self, pool: &PoolName, versions: RangeInclusive<u64>) -> Result<Vec<Item>, StoreError> {
        let (first, last) =
            (format!("{}{}", Key::SLOTS, versions.start()), format!("{}{}~", Key::SLOTS, versions.end()));
        let read = self.query(pool, Sorted::Between(&first, &last)).await?;
        // Some versions with other numbers of digits are sorted between them.
        let is_one = |item: &Item| matches!(item, Item::Slot(slot) if versions.contains(&slot.id.version));
        Ok(read.items.into_iter().filter(is_one).collect())
    }

    fn key(key: &Key) -> Attributes {
        [("pk".to_owned(), AttributeValue::S(key.pk())), ("sk".to_owned(), AttributeValue::S(key.sk()))].into()
    }

    fn attributes<T: serde::Serialize>(it: &T, pk: String, sk: Option<String>) -> Result<Attributes, StoreError> {
        let mut item: Attributes =
            serde_dynamo::to_item(it).map_err(|error| StoreError::new(format!("cannot serialise an item: {error}")))?;
        item.insert("pk".to_owned(), AttributeValue::S(pk));
        item.extend(sk.map(|sk| ("sk".to_owned(), AttributeValue::S(sk))));
        Ok(item)
    }

    fn put(&self, item: &Item) -> Result<TransactWriteItem, StoreError> {
        let (key, at) = (item.key(), Expected::at(item.revision()));
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(Self::attributes(&item.clone().next_revision(), key.pk(), Some(key.sk()))?))
            .condition_expression(at.expression)
            .set_expression_attribute_values(at.values);
        Ok(TransactWriteItem::builder().put(build(put.build())?).build())
    }

    fn delete(&self, key: &Key, revision: u64) -> Result<TransactWriteItem, StoreError> {
        let at = Expected::at(revision);
        let delete = Delete::builder()
            .table_name(&self.name)
            .set_key(Some(Self::key(key)))
            .condition_expression(at.expression)
            .set_expression_attribute_values(at.values);
        Ok(TransactWriteItem::builder().delete(build(delete.build())?).build())
    }

    fn check(&self, key: &Key, revision: u64) -> Result<TransactWriteItem, StoreError> {
        let at = Expected::at(revision);
        let check = ConditionCheck::builder()
            .table_name(&self.name)
            .set_key(Some(Self::key(key)))
            .condition_expression(at.expression)
            .set_expression_attribute_values(at.values);
        Ok(TransactWriteItem::builder().condition_check(build(check.build())?).build())
    }

    fn put_boot_item(&self, key: &str, item: &BootItem) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.boot)
            .set_item(Some(Self::attributes(item, key.to_owned(), None)?))
            .condition_expression("attribute_not_exists(pk)");
        Ok(TransactWriteItem::builder().put(build(put.build())?).build())
    }

    fn put_event(&self, event: &Event) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(&self.name).set_item(Some(Self::attributes(
            event,
            event.stream.pk(),
            Some(event.sequence.clone()),
        )?));
        Ok(TransactWriteItem::builder().put(build(put.build())?).build())
    }
}

/// A part of a partition, by sort key.
#[derive(Debug, Clone, Copy)]
enum Sorted<'a> {
    Everywhere,
    Before(&'a str),
    Between(&'a str, &'a str),
}

/// The condition that an item still has the revision that was read.
struct Expected {
    expression: &'static str,
    values: Option<Attributes>,
}

impl Expected {
    fn at(revision: u64) -> Self {
        if revision == 0 {
            return Self { expression: "attribute_not_exists(pk)", values: None };
        }
        let values = [(":revision".to_owned(), AttributeValue::N(revision.to_string()))].into();
        Self { expression: "revision = :revision", values: Some(values) }
    }
}

fn build<T>(part: Result<T, aws_sdk_dynamodb::error::BuildError>) -> Result<T, StoreError> {
    part.map_err(|error| StoreError::new(error.to_string()))
}

fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(error: E) -> StoreError {
    CallError::from_sdk(error).into()
}

/// An item of an unknown form.
#[derive(Debug)]
struct Unreadable {
    key: Key,
    message: String,
}

impl From<Unreadable> for StoreError {
    fn from(error: Unreadable) -> Self {
        unreadable(error.message)
    }
}

fn unreadable(message: String) -> StoreError {
    CallError::new(ErrorKind::Unreadable, message).into()
}

#[async_trait]
impl Store for Table {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let read = self.client.get_item().table_name(&self.name).set_key(Some(Self::key(key))).consistent_read(true);
        match read.send().await.map_err(failed)?.item {
            Some(attributes) => Ok(Self::parse(attributes)?),
            None => Ok(None),
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        Ok(self.read(keys, |_| false).await?.items)
    }

    async fn get_readable(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.read(keys, |_| true).await
    }

    async fn partition(&self, pool: &PoolName) -> Result<Reading, StoreError> {
        self.query(pool, Sorted::Everywhere).await
    }

    async fn partition_without(
        &self,
        pool: &PoolName,
        unread: &UnreadSlots,
        newest: u64,
    ) -> Result<Reading, StoreError> {
        let exceptions: Vec<Key> = unread.except.iter().map(|slot| Key::Slot(pool.clone(), *slot)).collect();
        // Nearly always one range.
        let later = async {
            let mut slots = Vec::new();
            for versions in ranges(unread, newest) {
                slots.extend(self.slots(pool, versions).await?);
            }
            Ok(slots)
        };
        let (others, later, exceptions) =
            tokio::try_join!(self.query(pool, Sorted::Before(Key::SLOTS)), later, self.read(&exceptions, |_| false),)?;
        let mut reading = others;
        reading.items.extend(later);
        reading.items.extend(exceptions.items);
        Ok(reading)
    }

    async fn unrouted(&self) -> Result<Reading, StoreError> {
        let mut reading = self.some_unrouted(ScanOrder::NewestFirst).await?;
        if reading.items.len() + reading.unreadable.len() >= MAX_UNROUTED {
            // Anybody can queue that many jobs with a label of no pool. They must not hide the older ones.
            let oldest = self.some_unrouted(ScanOrder::OldestFirst).await?;
            let read: BTreeSet<Key> = reading.items.iter().map(Item::key).chain(reading.unreadable.clone()).collect();
            reading.items.extend(oldest.items.into_iter().filter(|item| !read.contains(&item.key())));
            reading.unreadable.extend(oldest.unreadable.into_iter().filter(|key| !read.contains(key)));
        }
        Ok(reading)
    }

    async fn boot_reports(
        &self,
        role_id: &str,
        machines: &[InstanceId],
    ) -> Result<Option<BTreeMap<InstanceId, StoredReport>>, StoreError> {
        let Some(reports) = &self.reports else { return Ok(None) };
        let keys: Vec<String> = machines.iter().map(|machine| boot_key(role_id, machine)).collect();
        let mut read = reports.read(&keys).await?;
        let found = machines.iter().zip(&keys).filter_map(|(machine, key)| Some((machine.clone(), read.remove(key)?)));
        Ok(Some(found.collect()))
    }

    async fn commit(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let mut writes = Vec::with_capacity(transaction.len());
        let mut names = Vec::with_capacity(transaction.len());
        for item in &transaction.puts {
            writes.push(self.put(item)?);
            names.push(item.key().to_string());
        }
        for (key, revision) in &transaction.deletes {
            writes.push(self.delete(key, *revision)?);
            names.push(key.to_string());
        }
        for (key, revision) in &transaction.checks {
            writes.push(self.check(key, *revision)?);
            names.push(key.to_string());
        }
        if let Some((key, item)) = &transaction.boot {
            writes.push(self.put_boot_item(key, item)?);
            names.push("the boot item".to_owned());
        }
        if let Some(event) = &transaction.event {
            writes.push(self.put_event(event)?);
        }
        // One partition key takes 1,000 write units per second, and a decision about 48 jobs is 200 of them.
        let mut wait = FIRST_WAIT;
        loop {
            // The SDK adds a request token, so that its own retry after a lost reply does not conflict with the first attempt.
            let call = self.client.transact_write_items().set_transact_items(Some(writes.clone()));
            match call.send().await {
                Ok(_) => return Ok(()),
                Err(error) if is_throttled(&error) && wait <= LONGEST_WAIT => {
                    tracing::warn!("DynamoDB throttles a transaction, which is repeated after {wait:?}");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => return Err(refused(error, &names)),
            }
        }
    }
}

/// Whether DynamoDB cancelled the transaction only because one of the partitions has too many writes at present. The SDK repeats a
/// throttled call, and not this: the answer is that of a cancelled transaction.
fn is_throttled(error: &SdkError<TransactWriteItemsError>) -> bool {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return false;
    };
    let mut reasons = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code()).peekable();
    reasons.peek().is_some()
        && reasons.all(|code| matches!(code, "None" | "ThrottlingError" | "ProvisionedThroughputExceeded"))
}

/// A cancelled transaction has a reason for each write. The first reason that names another writer is the conflict.
fn refused(error: SdkError<TransactWriteItemsError>, names: &[String]) -> CommitError {
    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() {
        for (index, reason) in cancelled.cancellation_reasons().iter().enumerate() {
            if matches!(reason.code(), Some("ConditionalCheckFailed" | "TransactionConflict")) {
                return CommitError::Conflict(names.get(index).cloned().unwrap_or_else(|| "the log".to_owned()));
            }
        }
    }
    failed(error).into()
}
