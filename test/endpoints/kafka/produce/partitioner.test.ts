import { murmur2, partitionOf, StickyPartitioner } from '../../../../src/endpoints/kafka/produce/partitioner'

describe('the partition of a key', () => {
  // org.apache.kafka.common.utils.UtilsTest.testMurmur2
  it.each([
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ])('hash of %s is that of the Java client', (key, hash) => {
    expect(murmur2(Buffer.from(key))).toBe(hash)
  })
  it('is the hash without its sign, modulo the number of partitions', () => {
    expect(partitionOf(Buffer.from('21'), 12)).toBe((-973932308 & 0x7fffffff) % 12)
    for (let index = 0; index < 1000; index++) expect(partitionOf(Buffer.from(String(index)), 7)).toBeLessThan(7)
  })
})

describe('without a key', () => {
  it('records stay with one partition until it has had enough, then go to another one', () => {
    const sticky = new StickyPartitioner(100)
    const chosen = Array.from({ length: 40 }, () => sticky.choose([0, 1, 2, 3], 10))
    for (let at = 0; at < 40; at += 10) expect(new Set(chosen.slice(at, at + 10)).size).toBe(1)
    for (let at = 10; at < 40; at += 10) expect(chosen[at]).not.toBe(chosen[at - 1])
  })
  it('a partition that lost its leader is left at once', () => {
    const sticky = new StickyPartitioner(1000, () => 0)
    expect(sticky.choose([3, 4], 1)).toBe(3)
    expect(sticky.choose([4], 1)).toBe(4)
  })
})
