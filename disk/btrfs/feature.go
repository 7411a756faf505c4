package btrfs

// feature is one bit of one of the superblock's feature words.
type feature uint64

// Features that a reader must know (incompat_flags, 0xBC).
const (
	incompatMixedBackref  feature = 1 << 0
	incompatDefaultSubvol feature = 1 << 1
	incompatMixedGroups   feature = 1 << 2
	incompatCompressLZO   feature = 1 << 3
	incompatCompressZSTD  feature = 1 << 4
	incompatBigMetadata   feature = 1 << 5
	incompatExtendedIref  feature = 1 << 6
	incompatRAID56        feature = 1 << 7
	incompatSkinny        feature = 1 << 8
	incompatNoHoles       feature = 1 << 9
	incompatMetadataUUID  feature = 1 << 10
	incompatRAID1C34      feature = 1 << 11
	incompatZoned         feature = 1 << 12
	incompatExtentTreeV2  feature = 1 << 13
	incompatStripeTree    feature = 1 << 14
	incompatSimpleQuota   feature = 1 << 16
	incompatRemapTree     feature = 1 << 17
)

// Features that a writer must know (compat_ro_flags, 0xB4).
const (
	roFreeSpaceTree      feature = 1 << 0
	roFreeSpaceTreeValid feature = 1 << 1
	roVerity             feature = 1 << 2
	roBlockGroupTree     feature = 1 << 3
)

// The allow-lists. RAID56 stays set after a filesystem left those profiles; the
// chunks tell. Unknown bits among the features for writers are refused as well:
// they might be damage, and what they change is not known.
const (
	incompatSupported = incompatMixedBackref | incompatDefaultSubvol | incompatMixedGroups |
		incompatCompressLZO | incompatCompressZSTD | incompatBigMetadata | incompatExtendedIref |
		incompatRAID56 | incompatSkinny | incompatNoHoles | incompatMetadataUUID |
		incompatRAID1C34 | incompatSimpleQuota
	roSupported = roFreeSpaceTree | roFreeSpaceTreeValid | roVerity | roBlockGroupTree
)

// The names of /sys/fs/btrfs/features, for what is refused.
var incompatNames = map[feature]string{
	incompatZoned:        "zoned",
	incompatExtentTreeV2: "extent_tree_v2",
	incompatStripeTree:   "raid_stripe_tree",
	incompatRemapTree:    "remap_tree",
}
