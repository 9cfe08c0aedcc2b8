//! Few reads for one object, and rows in any order.

use super::*;

/// Counts the reads.
#[derive(Clone)]
struct Counting(Bytes, Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Counting {
    fn new(bytes: Bytes) -> Self {
        Self(bytes, Arc::default(), Arc::default())
    }

    fn take(&self) -> (usize, usize) {
        (
            self.1.swap(0, Ordering::SeqCst),
            self.2.swap(0, Ordering::SeqCst),
        )
    }
}

#[async_trait]
impl Source for Counting {
    async fn len(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.2
            .fetch_add((range.end - range.start) as usize, Ordering::SeqCst);
        self.0.read(range).await
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.0.stream().await
    }
}

#[test]
fn one_object_costs_few_reads_and_few_bytes() {
    run(async {
        let maps = config_maps();
        let items: Vec<_> = (0..30_000)
            .map(|n| item(&maps, Some("ns"), &format!("object-{n:06}"), 400))
            .collect();
        let pages: Vec<Page> = items
            .chunks(500)
            .map(|page| (maps.clone(), page.to_vec()))
            .collect();
        let (archive, index, totals) = write(&pages).await;
        let (archive, index) = (Counting::new(archive), Counting::new(index));
        let opened = Archive::open(archive.clone(), index.clone()).await.unwrap();
        let (reads, _) = index.take();
        assert!(reads <= 3, "{reads}");
        assert!(opened.index.frames("configmaps") > 5);
        let row = opened
            .index
            .find("configmaps", Some("ns"), "object-012345")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(index.take().0, 1);
        assert_eq!(opened.body(&row).await.unwrap(), items[12345].body);
        let ((members, _), (reads, bytes)) = (index.take(), archive.take());
        assert_eq!((members, reads), (1, 1));
        assert!((bytes as u64) < totals.bytes / 20, "{bytes}");

        let mut count = 0;
        for frame in 0..opened.index.frames("configmaps") {
            let rows = opened.index.rows("configmaps", frame).await.unwrap();
            count += opened
                .objects(rows)
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .len();
        }
        assert_eq!(count, items.len());
        let (reads, bytes) = archive.take();
        assert!(
            reads <= 24 && (bytes as u64) < 2 * totals.bytes,
            "{reads} {bytes}"
        );
    });
}

#[test]
fn rows_in_another_order_than_members_are_read_in_the_rows_order() {
    run(async {
        let pages = some_pages();
        let (archive, index, _) = write(&pages).await;
        let opened = Archive::open(archive, index).await.unwrap();
        let mut rows = opened.index.rows("configmaps", 0).await.unwrap();
        rows.reverse();
        rows.swap(0, 3);
        let objects: Vec<_> = opened.objects(rows.clone()).try_collect().await.unwrap();
        assert_eq!(
            objects.iter().map(|o| o.row.clone()).collect::<Vec<_>>(),
            rows
        );
        rows[1].crc32 = "00000000".into();
        let error = opened
            .objects(rows)
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    });
}
