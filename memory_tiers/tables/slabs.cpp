// Look-ups and updates of a two-level frame table; slabs.py says how it lies in memory.
// A free slab holds the base of the next free one of its capacity in its first cell.

#include <cstdint>

namespace {

constexpr int kGroupBits = 6;
constexpr int64_t kSlots = (1 << kGroupBits) - 1;
constexpr int64_t kAhead = 24;
constexpr int32_t kNowhere = -1;

struct Slabs {
    int64_t dealt;
    int64_t used;
    int32_t free[kGroupBits + 1];
};

struct Table {
    uint64_t* bits;
    int32_t* base;
    int32_t* cells;
    int64_t num_groups;
    int64_t num_cells;
    Slabs* slabs;
};

int count(uint64_t bits) { return __builtin_popcountll(bits); }

// Binary logarithm of the capacity; -1 for nothing.
int capacity_class(uint64_t bits) {
    const int pages = count(bits);
    return pages > 1 ? 32 - __builtin_clz(pages - 1) : pages - 1;
}

int64_t capacity(int size) { return size < 0 ? 0 : int64_t{1} << size; }

void give(const Table& table, int size, int32_t base) {
    table.cells[base] = table.slabs->free[size];
    table.slabs->free[size] = base;
}

int32_t take(const Table& table, int size) {
    Slabs& slabs = *table.slabs;
    const int32_t base = slabs.free[size];
    if (base >= 0) {
        slabs.free[size] = table.cells[base];
        return base;
    }
    if (slabs.dealt + capacity(size) > table.num_cells) return kNowhere;
    slabs.dealt += capacity(size);
    return static_cast<int32_t>(slabs.dealt - capacity(size));
}

// The bits of the pages from `start` on that lie in its group; stops before the first that lies
// elsewhere or comes twice.
struct Run {
    uint64_t bits = 0;
    int64_t stop;

    Run(const int64_t* pages, int64_t start, int64_t num_pages) : stop(start) {
        const int64_t group = pages[start] >> kGroupBits;
        for (; stop < num_pages && pages[stop] >> kGroupBits == group; ++stop) {
            const uint64_t bit = uint64_t{1} << (pages[stop] & kSlots);
            if (bits & bit) break;
            bits |= bit;
        }
    }
};

void fetch_ahead(const Table& table, const int64_t* pages, int64_t at, int64_t num_pages) {
    if (at >= num_pages) return;
    const int64_t group = pages[at] >> kGroupBits;
    __builtin_prefetch(table.bits + group);
    __builtin_prefetch(table.base + group);
}

bool outside(const Table& table, int64_t group) {
    return static_cast<uint64_t>(group) >= static_cast<uint64_t>(table.num_groups);
}

// From the last page to the first: within one slab a frame only ever moves up.
void merge(const int32_t* from, int32_t* to, uint64_t old, uint64_t added, const int32_t* frames) {
    const int32_t* source = from + count(old);
    int32_t* target = to + count(old | added);
    for (uint64_t left = old | added; left;) {
        const int slot = 63 - __builtin_clzll(left);
        left ^= uint64_t{1} << slot;
        *--target = (added >> slot & 1) ? frames[slot] : *--source;
    }
}

void squeeze(int32_t* cells, uint64_t old, uint64_t gone) {
    int32_t* target = cells;
    for (uint64_t left = old; left; left &= left - 1, ++cells) {
        if (!(gone >> __builtin_ctzll(left) & 1)) *target++ = *cells;
    }
}

}  // namespace

extern "C" {

// Returns how many pages lie outside the directory.
int64_t frames(const Table* table, const int64_t* pages, int64_t num_pages, int64_t* out) {
    int64_t num_outside = 0;
    for (int64_t at = 0; at < num_pages; ++at) {
        fetch_ahead(*table, pages, at + kAhead, num_pages);
        const int64_t group = pages[at] >> kGroupBits;
        const int slot = static_cast<int>(pages[at] & kSlots);
        if (outside(*table, group)) {
            ++num_outside;
            continue;
        }
        const uint64_t bits = table->bits[group];
        const uint64_t bit = uint64_t{1} << slot;
        out[at] = bits & bit ? table->cells[table->base[group] + count(bits & (bit - 1))] : kNowhere;
    }
    return num_outside;
}

// Returns how many pages were placed before the cells ran out; less than 0: ~index of a page that
// is here already or lies outside.
int64_t place(const Table* table, const int64_t* pages, int64_t num_pages, const int64_t* frames) {
    int32_t incoming[kSlots + 1];
    for (int64_t at = 0; at < num_pages;) {
        fetch_ahead(*table, pages, at + kAhead, num_pages);
        const int64_t group = pages[at] >> kGroupBits;
        if (outside(*table, group)) return ~at;
        const Run run(pages, at, num_pages);
        const uint64_t old = table->bits[group];
        if (old & run.bits) return ~at;
        for (int64_t one = at; one < run.stop; ++one) {
            incoming[pages[one] & kSlots] = static_cast<int32_t>(frames[one]);
        }
        const int old_class = capacity_class(old), new_class = capacity_class(old | run.bits);
        const int32_t from = table->base[group];
        const int32_t to = new_class == old_class ? from : take(*table, new_class);
        if (to < 0) return at;
        merge(table->cells + from, table->cells + to, old, run.bits, incoming);
        if (to != from && old_class >= 0) give(*table, old_class, from);
        table->slabs->used += capacity(new_class) - capacity(old_class);
        table->base[group] = to;
        table->bits[group] = old | run.bits;
        at = run.stop;
    }
    return num_pages;
}

// Returns the number of pages; less than 0: ~index of a page that is not here or lies outside.
int64_t remove_pages(const Table* table, const int64_t* pages, int64_t num_pages) {
    for (int64_t at = 0; at < num_pages;) {
        fetch_ahead(*table, pages, at + kAhead, num_pages);
        const int64_t group = pages[at] >> kGroupBits;
        if (outside(*table, group)) return ~at;
        const Run run(pages, at, num_pages);
        const uint64_t old = table->bits[group];
        if ((old & run.bits) != run.bits) return ~at;
        const int32_t base = table->base[group];
        squeeze(table->cells + base, old, run.bits);
        const int old_class = capacity_class(old), new_class = capacity_class(old ^ run.bits);
        if (new_class < 0) give(*table, old_class, base);
        for (int size = new_class; size >= 0 && size < old_class; ++size) {
            give(*table, size, base + static_cast<int32_t>(capacity(size)));
        }
        table->slabs->used += capacity(new_class) - capacity(old_class);
        table->bits[group] = old ^ run.bits;
        at = run.stop;
    }
    return num_pages;
}

}  // extern "C"
