/** Lines like those of feeds: JSON that compresses by about four. They are made once and kept in the cache folder. */
'use strict'
const fs = require('fs')
const path = require('path')
const { cache } = require('../services/process')

/**
 * @param {number} bytes
 * @param {number} [line] bytes of each line, its newline included
 * @returns the file's path; its size is the largest multiple of a line that `bytes` holds
 */
function data(bytes, line = 220) {
  const folder = path.join(cache, 'bench')
  const file = path.join(folder, `lines-${line === 220 ? '' : `of-${line}-`}${bytes}`)
  const lines = Math.floor(bytes / line)
  if (fs.existsSync(file) && fs.statSync(file).size === lines * line) return { file, lines, bytes: lines * line }
  fs.mkdirSync(folder, { recursive: true })
  const out = fs.openSync(`${file}.part`, 'w')
  let state = 88172645463325252n
  const random = () => {
    state ^= state << 13n
    state &= (1n << 64n) - 1n
    state ^= state >> 7n
    state ^= state << 17n
    state &= (1n << 64n) - 1n
    return state
  }
  // One block of some MiB is repeated: gigabytes must not take minutes to make, and no compressor looks back that far.
  const block = []
  for (let i = 0; i < 20_000; i++) {
    const head = `{"seq":${String(i).padStart(9, '0')},"symbol":"${['BTC-USD', 'ETH-USD', 'SOL-USD', 'ADA-USD'][Number(random() % 4n)]}","price":${Number(random() % 10_000_000n) / 100},"size":${Number(random() % 100_000n) / 1000},"id":"${random().toString(16)}${random().toString(16)}","venue":"exchange-${Number(random() % 20n)}","note":"`
    block.push(`${head}${'executed at market '.repeat(8)}`.slice(0, line - 3) + '"}\n')
  }
  const bytesOfBlock = Buffer.from(block.join(''))
  for (let left = lines * line; left > 0; left -= bytesOfBlock.length)
    fs.writeSync(out, bytesOfBlock, 0, Math.min(left, bytesOfBlock.length))
  fs.closeSync(out)
  fs.renameSync(`${file}.part`, file)
  return { file, lines, bytes: lines * line }
}

module.exports = { data }
