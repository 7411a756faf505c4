package xfs

// Features that a writer must know (sb_features_ro_compat).
const (
	roFinobt      = 0x1
	roRmapbt      = 0x2
	roReflink     = 0x4
	roInobtCounts = 0x8

	roSupported = roFinobt | roRmapbt | roReflink | roInobtCounts
)

// Features that a reader must know (sb_features_incompat).
const (
	incompatFtype       = 0x1
	incompatSparse      = 0x2
	incompatMetaUUID    = 0x4
	incompatBigtime     = 0x8
	incompatNeedsRepair = 0x10
	incompatNrext64     = 0x20
	incompatExchange    = 0x40
	incompatParent      = 0x80
	incompatMetadir     = 0x100
	incompatZoned       = 0x200
	incompatZoneGaps    = 0x400

	incompatSupported = incompatFtype | incompatSparse | incompatMetaUUID | incompatBigtime |
		incompatNrext64 | incompatExchange | incompatParent
)

// logIncompatXattrs says that the log may hold intents to change extended
// attributes (sb_features_log_incompat). It concerns who replays a log, and is
// the only one.
const logIncompatXattrs = 0x1

// The bits of sb_versionnum above the version. Those of quotas, of alignment
// and of what is counted lazily say nothing to a reader.
const (
	versionMask     = 0xf
	versionAttr     = 0x10
	versionNlink    = 0x20
	versionQuota    = 0x40
	versionAlign    = 0x80
	versionDalign   = 0x100
	versionLogV2    = 0x400
	versionSector   = 0x800
	versionExtFlag  = 0x1000
	versionDirV2    = 0x2000
	versionCI       = 0x4000 // names without case, in ASCII
	versionMoreBits = 0x8000

	versionSupported = versionMask | versionAttr | versionNlink | versionQuota | versionAlign | versionDalign |
		versionLogV2 | versionSector | versionExtFlag | versionDirV2 | versionCI | versionMoreBits
)

// The bits of sb_features2.
const (
	features2LazyCount = 0x2
	features2Attr2     = 0x8
	features2Projid32  = 0x80
	features2CRC       = 0x100
	features2Ftype     = 0x200

	features2Supported = features2LazyCount | features2Attr2 | features2Projid32 | features2CRC | features2Ftype
)

// The names that xfs_db(8) and mkfs.xfs(8) use for what is refused.
var incompatNames = map[uint32]string{
	incompatNeedsRepair: "needsrepair",
	incompatMetadir:     "metadir",
	incompatZoned:       "zoned",
	incompatZoneGaps:    "zone_gaps",
}
