// One valid value of every type of the format, each field distinct, the same in every run.
#pragma once

#include <string>
#include <vector>

#include "engine/format/directory.h"
#include "engine/format/log_record.h"
#include "engine/format/pack.h"
#include "engine/format/part.h"
#include "engine/format/root.h"

namespace caisson::testing {

inline constexpr uint64_t kSampleSeq = 0x1234;

Uuid sample_uuid(uint8_t n);
Digest sample_digest(uint8_t n);
format::ObjectRef sample_ref(format::ObjectKind kind, uint32_t number);
format::ObjectRef sample_pack();
// Of a pack: `at_units` follow each other.
format::ChunkEntry sample_entry(uint32_t offset_units, uint32_t raw_bytes);
// Of a part's table: raw, encoded, inline and with a base.
std::vector<format::ChunkEntry> sample_table_entries(size_t count);
std::vector<format::Segment> sample_segments();  // of sample_pack()
uint64_t sample_footer_offset();
format::BaseRef sample_base_ref();
format::PartTrailer sample_part_trailer();
// Sharded on the tile grid, on an own grid, as replica, scalar, empty, blob, alias, fp4.
std::vector<TensorRecord> sample_records();
format::Root sample_root();  // as its tables make it, but for their digest and offset
format::PackTables sample_pack_tables();
format::StoreFile sample_store_file();
std::vector<format::LogBody> sample_log_bodies();
format::LogRecord sample_log_record(const format::LogBody& body);
std::vector<std::string> sample_keys();
ByteVector sample_text(size_t bytes);  // compressible

}  // namespace caisson::testing
