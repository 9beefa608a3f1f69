import { Space } from '../../src/spool/space'
import { realFileSystem } from '../../src/kit/file-system'
import { silent } from './support'

const MIB = 1024 ** 2

test.each([1, 3, 16])('the reserve of a disk is kept to the byte by whoever writes %d MiB at a time', async (size) => {
  let free = 148 * MIB
  const space = new Space(
    { ...realFileSystem, space: () => Promise.resolve({ free, total: 1000 * MIB }) },
    '/',
    128 * MIB,
    undefined,
    silent,
  )
  let asked = 0
  while ((await space.shortage(size * MIB, 0)) === undefined && asked++ < 100) {
    free -= size * MIB
    space.used(size * MIB)
  }
  expect(free).toBeGreaterThanOrEqual(128 * MIB)
  expect(free - 128 * MIB).toBeLessThan(size * MIB)
})
