/**
 * Ratios to a peer or a limit, medians of alternating pairs in one run, with CPU and memory of manifold. Never part of
 * the tests.
 *
 *   npm run bench [-- --pairs 5] [--only stdio,accept,s3,gzip,ws,kafka,amqp,kinesis]
 *                    [--bytes 1000000000] [--records 1350000] [--ten]
 *
 * kafka is all of kafka-stdout, stdin-kafka, kafka-kafka and kafka-accept, each of which may be named alone. --bytes:
 * of stdio and S3; --records: of Kafka, a seventh of it for RabbitMQ, a ninth for Kinesis; --ten: memory at ten times
 * the bytes as well.
 */
'use strict'
const fs = require('fs')
const os = require('os')
const path = require('path')
const { ready } = require('./setup')

ready(__filename, async () => {
  const benches = ['stdio', 's3', 'ws', 'kafka', 'rabbitmq', 'kinesis'].map((name) => require(`./bench/${name}`))
  const option = (name, value) => {
    const at = process.argv.indexOf(`--${name}`)
    return at === -1 ? value : process.argv[at + 1]
  }
  const only = option('only', '').split(',').filter(Boolean)
  const known = benches.flatMap(({ names }) => names)
  const unknown = only.filter((name) => !known.includes(name))
  if (unknown.length > 0) throw new Error(`there is no row ${unknown.join(', ')}: ${known.join(', ')} are known`)
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-bench-'))
  const bench = {
    manifold: path.join(__dirname, '../bin/manifold.js'),
    folder,
    /** A folder for the state of one run. */
    state: () => fs.mkdtempSync(path.join(folder, 'state-')),
    pairs: Number(option('pairs', '5')),
    bytes: Number(option('bytes', '1000000000')),
    records: Number(option('records', '1350000')),
    ten: process.argv.includes('--ten'),
    wants: (name) => only.length === 0 || only.includes(name),
    results: [],
    /** Rows that measure memory alone: a name and MiB. */
    memory: [],
    /** Rows that could not be measured, each with the reason. */
    left: [],
  }
  try {
    for (const { run } of benches) await run(bench)
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
  const { pairs, bytes, results, memory, left } = bench
  process.stdout.write(
    `\n${os.cpus().length} cores, ${os.cpus()[0].model}, Node ${process.version}, ${bytes} bytes in lines of 220 (stdio, S3), medians of ${pairs} pairs; ratio = peer's time / ours\n\n`,
  )
  process.stdout.write(
    '| what | ratio | goal | peer s | manifold s | CPU s | memory MiB |\n|---|---|---|---|---|---|---|\n',
  )
  for (const { name, ratio, goal, peer, ours, cpu, mib } of results)
    process.stdout.write(
      `| ${name} | ${ratio.toFixed(2)} | ${goal ?? ''} | ${peer.toFixed(2)} | ${ours.toFixed(2)} | ${cpu?.toFixed(2) ?? '?'} | ${mib.toFixed(0)} |\n`,
    )
  for (const [name, mib] of memory) process.stdout.write(`| ${name} | | | | | | ${mib?.toFixed(0) ?? '?'} |\n`)
  for (const why of left) process.stdout.write(`\nnot measured: ${why}\n`)
})
