package ext4

// feature is one bit of one of the superblock's three feature words.
type feature uint32

// Features that say nothing about how to read (s_feature_compat, 0x5C). A
// reader may ignore those that it does not know, by their definition.
const (
	compatHasJournal   feature = 0x4
	compatDirIndex     feature = 0x20
	compatSparseSuper2 feature = 0x200
)

// Features that a reader must know (s_feature_incompat, 0x60).
const (
	incompatCompression feature = 0x1
	incompatFiletype    feature = 0x2
	incompatRecover     feature = 0x4
	incompatJournalDev  feature = 0x8
	incompatMetaBG      feature = 0x10
	incompatExtents     feature = 0x40
	incompat64Bit       feature = 0x80
	incompatMMP         feature = 0x100
	incompatFlexBG      feature = 0x200
	incompatEAInode     feature = 0x400
	incompatDirData     feature = 0x1000
	incompatCsumSeed    feature = 0x2000
	incompatLargeDir    feature = 0x4000
	incompatInlineData  feature = 0x8000
	incompatEncrypt     feature = 0x10000
	incompatCasefold    feature = 0x20000
)

// Features that a writer must know (s_feature_ro_compat, 0x64).
const (
	roSparseSuper   feature = 0x1
	roLargeFile     feature = 0x2
	roBtreeDir      feature = 0x4
	roHugeFile      feature = 0x8
	roGdtCsum       feature = 0x10
	roDirNlink      feature = 0x20
	roExtraIsize    feature = 0x40
	roHasSnapshot   feature = 0x80
	roQuota         feature = 0x100
	roBigalloc      feature = 0x200
	roMetadataCsum  feature = 0x400
	roReplica       feature = 0x800
	roReadonly      feature = 0x1000
	roProject       feature = 0x2000
	roSharedBlocks  feature = 0x4000
	roVerity        feature = 0x8000
	roOrphanPresent feature = 0x10000
)

// The allow-lists. Unknown bits among the features for writers are refused as
// well: they might be damage, and whoever adds a feature there may have changed
// what a checksum covers.
const (
	incompatSupported = incompatFiletype | incompatRecover | incompatMetaBG |
		incompatExtents | incompat64Bit | incompatMMP | incompatFlexBG |
		incompatEAInode | incompatCsumSeed | incompatLargeDir |
		incompatInlineData | incompatEncrypt | incompatCasefold
	roSupported = roSparseSuper | roLargeFile | roBtreeDir | roHugeFile |
		roGdtCsum | roDirNlink | roExtraIsize | roQuota | roBigalloc |
		roMetadataCsum | roReadonly | roProject | roSharedBlocks | roVerity |
		roOrphanPresent
)

// What only an ext4 has; without these a filesystem is an ext3 or an ext2.
// (The same sets decide what blkid(8) calls a filesystem.)
const (
	incompatExt3 = incompatFiletype | incompatRecover | incompatMetaBG
	roExt3       = roSparseSuper | roLargeFile | roBtreeDir
)

// The names that dumpe2fs(8) uses.
var (
	incompatNames = map[feature]string{
		incompatCompression: "compression",
		incompatJournalDev:  "journal_dev",
		incompatDirData:     "dirdata",
	}
	roNames = map[feature]string{
		roHasSnapshot: "has_snapshot",
		roReplica:     "replica",
	}
)
