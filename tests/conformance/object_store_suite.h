// What every ObjectStore must do. A binary includes this once and instantiates ObjectStoreSuite
// with one ObjectStoreCase a store. Nothing here knows directories.
#pragma once

#include <map>

#include "io/object_store.h"
#include "tests/conformance/file_system_suite.h"

namespace caisson::testing {

// One empty store under test. open() gives another ObjectStore on the same objects, as a second
// process would have; it lives as long as the host.
class ObjectStoreHost {
 public:
  virtual ~ObjectStoreHost() = default;
  virtual std::unique_ptr<ObjectStore> open() = 0;
};
struct ObjectStoreCase {
  std::string name;
  std::function<std::unique_ptr<ObjectStoreHost>()> make;
};
inline std::string store_case_name(const ::testing::TestParamInfo<ObjectStoreCase>& info) {
  return info.param.name;
}
inline void PrintTo(const ObjectStoreCase& c, std::ostream* out) { *out << c.name; }

class ObjectStoreSuite : public ::testing::TestWithParam<ObjectStoreCase> {
 protected:
  void SetUp() override {
    host_ = GetParam().make();
    store_ = host_->open();
  }
  std::map<std::string, uint64_t> listed(std::string_view prefix) {
    std::map<std::string, uint64_t> found;
    const Status status = store_->list(prefix, [&](const ObjectInfo& object) {
      EXPECT_TRUE(found.emplace(object.key, object.bytes).second) << object.key << " came twice";
      return ok_status();
    });
    EXPECT_TRUE(status.ok()) << status.to_string();
    return found;
  }
  std::string got(std::string_view key) {
    auto bytes = store_->get(key, 1 << 20);
    EXPECT_TRUE(bytes.ok()) << bytes.status().to_string();
    return bytes.ok() ? std::string(as_text(*bytes)) : std::string();
  }

  std::unique_ptr<ObjectStoreHost> host_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_P(ObjectStoreSuite, CreatesOnce) {
  EXPECT_THAT(store_->get("log/1", 10).status(), HasCode(StatusCode::kNotFound));
  EXPECT_THAT(store_->stat("log/1").status(), HasCode(StatusCode::kNotFound));
  ASSERT_STATUS_OK(store_->put_new("log/1", as_bytes("first")));
  EXPECT_THAT(store_->put_new("log/1", as_bytes("second")), HasCode(StatusCode::kAlreadyExists));
  EXPECT_EQ(got("log/1"), "first");
  EXPECT_EQ(store_->stat("log/1").value().bytes, 5u);
  EXPECT_EQ(store_->stat("log/1").value().key, "log/1");
  ASSERT_STATUS_OK(store_->put_new("log/empty", {}));
  EXPECT_EQ(got("log/empty"), "");
  auto other = host_->open();
  EXPECT_THAT(other->put_new("log/1", as_bytes("third")), HasCode(StatusCode::kAlreadyExists));
  EXPECT_EQ(as_text(other->get("log/1", 5).value()), "first");
}

TEST_P(ObjectStoreSuite, BoundsWhatItGets) {
  ASSERT_STATUS_OK(store_->put_new("a", as_bytes("12345")));
  EXPECT_TRUE(store_->get("a", 5).ok());
  EXPECT_THAT(store_->get("a", 4).status(), HasCode(StatusCode::kCorruption));
}

TEST_P(ObjectStoreSuite, RefusesBadKeys) {
  for (const std::string& key : std::vector<std::string>{
           "", "/a", "a/", "a//b", "../a", "a/../b", "a/..", "A", "a b", "a\n",
           std::string("a\0b", 3), std::string(201, 'a'), "a/./b", ".", "\xc3\xa4"}) {
    EXPECT_THAT(store_->put_new(key, {}), HasCode(StatusCode::kInvalidArgument)) << key;
    EXPECT_THAT(store_->get(key, 1).status(), HasCode(StatusCode::kInvalidArgument)) << key;
    EXPECT_THAT(store_->create(key, 1).status(), HasCode(StatusCode::kInvalidArgument)) << key;
    EXPECT_THAT(store_->open(key).status(), HasCode(StatusCode::kInvalidArgument)) << key;
    EXPECT_THAT(store_->stat(key).status(), HasCode(StatusCode::kInvalidArgument)) << key;
    EXPECT_THAT(store_->remove(key), HasCode(StatusCode::kInvalidArgument)) << key;
  }
  EXPECT_THAT(store_->sync_names("log"), HasCode(StatusCode::kInvalidArgument));
  EXPECT_THAT(store_->sync_names("../"), HasCode(StatusCode::kInvalidArgument));
  ASSERT_STATUS_OK(store_->put_new(std::string(100, 'a') + "/" + std::string(99, 'b'), {}));
}

TEST_P(ObjectStoreSuite, WritesPublishesAndReadsLargeObjects) {
  constexpr uint64_t kBytes = 3 << 20;
  const ByteVector data = random_bytes(kBytes + 5, 21);
  {
    auto writer = store_->create("data/s/a.pack", 16 << 20).value();
    EXPECT_EQ(writer->key(), "data/s/a.pack");
    ASSERT_STATUS_OK(writer->write(kBytes, Bytes(data).subspan(kBytes)));
    auto memory = AlignedBuffer::allocate(kBytes).value();
    std::copy_n(data.begin(), kBytes, memory.data());
    auto queue = store_->make_queue({.depth = 4, .registered_memory = memory.bytes()}).value();
    EXPECT_EQ(queue->depth(), 4u);
    for (uint64_t i = 0; i < 3; ++i) {
      ASSERT_STATUS_OK(
          queue->submit_write(*writer, i << 20, memory.bytes().subspan(i << 20, 1 << 20), 100 + i));
    }
    std::set<uint64_t> tags;
    while (queue->in_flight() > 0) {
      const IoCompletion done = queue->wait().value();
      EXPECT_TRUE(done.status.ok()) << done.status.to_string();
      tags.insert(done.tag);
    }
    EXPECT_EQ(tags, (std::set<uint64_t>{100, 101, 102}));
    ASSERT_STATUS_OK(writer->publish(data.size()));
    EXPECT_THAT(writer->publish(data.size()), HasCode(StatusCode::kInvalidArgument));
    EXPECT_THAT(writer->write(0, Bytes(data).first(1)), HasCode(StatusCode::kInvalidArgument));
  }
  auto reader = store_->open("data/s/a.pack").value();
  EXPECT_EQ(reader->bytes(), data.size());
  EXPECT_EQ(reader->key(), "data/s/a.pack");
  ByteVector back(data.size());
  ASSERT_STATUS_OK(reader->read(0, back));
  EXPECT_TRUE(back == data);
  ASSERT_STATUS_OK(reader->read(kBytes - 3, MutableBytes(back).first(8)));
  EXPECT_TRUE(std::equal(back.begin(), back.begin() + 8, data.begin() + kBytes - 3));
  EXPECT_THAT(reader->read(kBytes, MutableBytes(back).first(6)), HasCode(StatusCode::kCorruption));

  auto memory = AlignedBuffer::allocate(1 << 20).value();
  auto queue = host_->open()->make_queue({}).value();  // outlives the store that made it
  ASSERT_STATUS_OK(queue->submit_read(*reader, 1 << 20, memory.bytes(), 8));
  const IoCompletion done = queue->wait().value();
  EXPECT_EQ(done.tag, 8u);
  EXPECT_TRUE(done.status.ok()) << done.status.to_string();
  EXPECT_TRUE(std::equal(memory.data(), memory.data() + memory.size(), data.begin() + (1 << 20)));
}

TEST_P(ObjectStoreSuite, AnUnpublishedObjectVanishes) {
  auto writer = store_->create("data/s/a", 1 << 20).value();
  EXPECT_THAT(store_->create("data/s/a", 1).status(), HasCode(StatusCode::kAlreadyExists));
  ASSERT_STATUS_OK(writer->write(0, as_bytes("bytes")));
  writer.reset();
  EXPECT_THAT(store_->open("data/s/a").status(), HasCode(StatusCode::kNotFound));
  EXPECT_TRUE(store_->create("data/s/a", 1).ok());
}

TEST_P(ObjectStoreSuite, PublishesNothingThatNobodyWaitedFor) {
  auto memory = AlignedBuffer::allocate(4096).value();
  auto writer = store_->create("a", 4096).value();
  auto queue = store_->make_queue({}).value();
  ASSERT_STATUS_OK(queue->submit_write(*writer, 0, memory.bytes(), 1));
  EXPECT_THAT(writer->publish(4096), HasCode(StatusCode::kInvalidArgument));
  EXPECT_TRUE(queue->wait().value().status.ok());
  EXPECT_FALSE(writer->publish(4096).ok()) << "given up for good";
}

TEST_P(ObjectStoreSuite, PublishesThroughAQueue) {
  const ByteVector data = random_bytes(4096, 22);
  auto memory = AlignedBuffer::allocate(4096).value();
  std::ranges::copy(data, memory.data());
  auto writer = store_->create("data/s/q", 1 << 20).value();
  auto queue = store_->make_queue({.depth = 2, .registered_memory = {}}).value();
  EXPECT_THAT(queue->submit_publish(*writer, (1 << 20) + 1, 1),
              HasCode(StatusCode::kInvalidArgument));
  writer.reset();
  writer = store_->create("data/s/q", 1 << 20).value();
  ASSERT_STATUS_OK(queue->submit_write(*writer, 0, memory.bytes(), 1));
  EXPECT_TRUE(queue->wait().value().status.ok());
  ASSERT_STATUS_OK(queue->submit_publish(*writer, 4096, 2));
  EXPECT_THAT(writer->publish(4096), HasCode(StatusCode::kInvalidArgument)) << "in flight";
  EXPECT_EQ(queue->in_flight(), 1u);
  const IoCompletion done = queue->wait().value();
  EXPECT_EQ(done.tag, 2u);
  EXPECT_FALSE(done.status.ok()) << "somebody else meddled";

  writer.reset();
  writer = store_->create("data/s/q", 1 << 20).value();
  ASSERT_STATUS_OK(queue->submit_write(*writer, 0, memory.bytes(), 3));
  EXPECT_THAT(queue->submit_publish(*writer, 4096, 4), HasCode(StatusCode::kInvalidArgument))
      << "a write is in flight";
  EXPECT_TRUE(queue->wait().value().status.ok());

  writer.reset();
  writer = store_->create("data/s/q", 1 << 20).value();
  ASSERT_STATUS_OK(queue->submit_write(*writer, 0, memory.bytes(), 5));
  EXPECT_TRUE(queue->wait().value().status.ok());
  ASSERT_STATUS_OK(queue->submit_publish(*writer, 4096, 6));
  EXPECT_TRUE(queue->wait().value().status.ok());
  EXPECT_THAT(writer->publish(4096), HasCode(StatusCode::kInvalidArgument)) << "done already";
  writer.reset();
  EXPECT_TRUE(store_->get("data/s/q", 1 << 20).value() == data);
}

TEST_P(ObjectStoreSuite, PublishesNoMoreThanItReserved) {
  auto writer = store_->create("a", 100).value();
  EXPECT_THAT(writer->publish(101), HasCode(StatusCode::kInvalidArgument));
}

TEST_P(ObjectStoreSuite, ListsByPrefixAndRemoves) {
  EXPECT_TRUE(listed("").empty());
  EXPECT_TRUE(listed("data/").empty());
  for (const std::string key :
       {"caisson.store", "log/1", "log/2", "logs/1", "data/a/x", "data/b/c/y"}) {
    ASSERT_STATUS_OK(store_->put_new(key, as_bytes(key)));
  }
  using Map = std::map<std::string, uint64_t>;
  EXPECT_EQ(listed("log/"), (Map{{"log/1", 5}, {"log/2", 5}}));
  EXPECT_EQ(listed("data/"), (Map{{"data/a/x", 8}, {"data/b/c/y", 10}}));
  EXPECT_EQ(listed("data/b/c/"), (Map{{"data/b/c/y", 10}}));
  EXPECT_EQ(listed("").size(), 6u);
  EXPECT_THAT(store_->list("", [](const ObjectInfo&) { return cancelled("enough"); }),
              HasCode(StatusCode::kCancelled));
  ASSERT_STATUS_OK(store_->remove("data/b/c/y"));
  ASSERT_STATUS_OK(store_->remove("data/b/c/y"));
  ASSERT_STATUS_OK(store_->remove("never/there"));
  EXPECT_THAT(store_->get("data/b/c/y", 100).status(), HasCode(StatusCode::kNotFound));
  EXPECT_EQ(listed("data/"), (Map{{"data/a/x", 8}}));
  ASSERT_STATUS_OK(store_->put_new("data/b/c/y", as_bytes("again")));
  EXPECT_EQ(got("data/b/c/y"), "again");
}

TEST_P(ObjectStoreSuite, SyncsNames) {
  ASSERT_STATUS_OK(store_->sync_names("log/"));
  ASSERT_STATUS_OK(store_->sync_names(""));
  ASSERT_STATUS_OK(store_->put_new("log/1", {}));
  ASSERT_STATUS_OK(store_->sync_names("log/"));
  ASSERT_STATUS_OK(store_->sync_names(""));
}

TEST_P(ObjectStoreSuite, ListsWhatSortsAfterAKey) {
  for (const std::string key : {"log/1", "log/2", "log/3", "log/3/deeper", "log/4", "logs/9"}) {
    if (key != "log/3") ASSERT_STATUS_OK(store_->put_new(key, as_bytes(key)));
  }
  const auto after = [&](const std::string& key) {
    std::map<std::string, uint64_t> found;
    EXPECT_TRUE(store_
                    ->list_after("log/", key,
                                 [&](const ObjectInfo& info) {
                                   found.emplace(info.key, info.bytes);
                                   return ok_status();
                                 })
                    .ok());
    return found;
  };
  using Map = std::map<std::string, uint64_t>;
  EXPECT_EQ(after(""), (Map{{"log/1", 5}, {"log/2", 5}, {"log/4", 5}}));
  EXPECT_EQ(after("a"), after(""));
  EXPECT_EQ(after("log/2"), (Map{{"log/4", 5}}));
  EXPECT_EQ(after("log/22"), (Map{{"log/4", 5}}));
  EXPECT_EQ(after("log/4"), Map());
  EXPECT_EQ(after("m"), Map());
  EXPECT_TRUE(store_->list_after("none/", "", [](const ObjectInfo&) { return ok_status(); }).ok());
  EXPECT_THAT(store_->list_after("log", "", [](const ObjectInfo&) { return ok_status(); }),
              HasCode(StatusCode::kInvalidArgument));
}

TEST_P(ObjectStoreSuite, OneOfManyRacingCreationsWins) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 10;
  std::vector<std::vector<Status>> outcomes(kRounds, std::vector<Status>(kThreads));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        auto store = host_->open();
        for (int round = 0; round < kRounds; ++round) {
          outcomes[round][i] =
              store->put_new("log/" + std::to_string(round), as_bytes(std::to_string(i)));
        }
      });
    }
  }
  for (int round = 0; round < kRounds; ++round) {
    int winner = -1;
    for (int i = 0; i < kThreads; ++i) {
      if (outcomes[round][i].ok()) {
        EXPECT_EQ(winner, -1) << "two winners";
        winner = i;
      } else {
        EXPECT_THAT(outcomes[round][i], HasCode(StatusCode::kAlreadyExists));
      }
    }
    EXPECT_EQ(got("log/" + std::to_string(round)), std::to_string(winner));
  }
}

TEST_P(ObjectStoreSuite, CreationsAndRemovalsOfOneDirectoryDoNotCollide) {
  constexpr int kRounds = 50;
  std::jthread remover([&] {
    auto store = host_->open();
    for (int round = 0; round < kRounds; ++round) EXPECT_TRUE(store->remove("data/s/b").ok());
  });
  for (int round = 0; round < kRounds; ++round) {
    auto writer = store_->create("data/s/a", 10);
    ASSERT_TRUE(writer.ok()) << writer.status().to_string();
    ASSERT_STATUS_OK((*writer)->publish(0));
    ASSERT_STATUS_OK(store_->put_new("data/s/b" + std::to_string(round), {}));
    ASSERT_STATUS_OK(store_->remove("data/s/a"));
    ASSERT_STATUS_OK(store_->remove("data/s/b" + std::to_string(round)));
  }
}

TEST_P(ObjectStoreSuite, SaysWhatItCanDo) {
  const ObjectCaps caps = store_->caps();
  EXPECT_TRUE(caps.atomic_create);
  EXPECT_FALSE(caps.engine.empty());
  EXPECT_GE(caps.alignment.memory, 1u);
  EXPECT_GE(caps.alignment.offset, 1u);
}

}  // namespace caisson::testing
