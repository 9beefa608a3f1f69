/**
 * Ratios to a peer or a limit, medians of alternating pairs in one run, with CPU and memory of manifold. Never part of the tests.
 *
 *   npm run bench [-- --pairs 5] [--only stdio,accept,s3,gzip,ws] [--bytes 1000000000] [--ten]      (--ten: memory at ten times the bytes as well)
 */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const http = require('http')
const os = require('os')
const path = require('path')
const { ready } = require('./setup')

ready(__filename, async () => {
  const { compare, measure } = require('./bench/measure')
  const { data } = require('./bench/data')
  const { startS3, available } = require('./services/s3')
  const option = (name, value) => { const at = process.argv.indexOf(`--${name}`); return at === -1 ? value : process.argv[at + 1] }
  const pairs = Number(option('pairs', '5'))
  const only = option('only', '').split(',').filter(Boolean)
  const bytes = Number(option('bytes', '1000000000'))
  const wants = (name) => only.length === 0 || only.includes(name)
  const manifold = path.join(__dirname, '../bin/manifold.js')
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-bench-'))
  const { file, lines } = data(bytes)
  const results = []
  const memory = []
  const state = () => fs.mkdtempSync(path.join(folder, 'state-'))

  const stdio = (input) => measure((wrap) => `cat '${input}' | ${wrap(`'${manifold}' --from - --to -`)} | cat > /dev/null`)
  if (wants('stdio')) results.push(await compare('stdin to stdout', pairs, () => measure(() => `cat '${file}' | cat | cat > /dev/null`), () => stdio(file), 0.5))

  if (wants('accept')) {
    results.push(await compare('accept into the spool', pairs,
      () => measure(() => `cat '${file}' | dd bs=4M iflag=fullblock oflag=dsync of='${folder}/dd' status=none && rm '${folder}/dd'`),
      () => accept(manifold, file, lines, state()), 0.5))
  }

  // The server's own work and disk are part of each figure, so each kind that proves something has its rows.
  for (const kind of wants('s3') || wants('gzip') ? available().filter((one) => one !== 'moto') : []) {
    const server = await startS3({ kind })
    try {
      const env = Object.assign({}, process.env, { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey, AWS_DEFAULT_REGION: 'us-east-1', AWS_REGION: 'us-east-1', AWS_EC2_METADATA_DISABLED: 'true' })
      const aws = `aws --endpoint-url ${server.endpoint}`
      await measure(() => `${aws} s3 mb s3://bench > /dev/null`, { env, stdio: ['ignore', 'ignore', 'pipe'] })
      const clean = () => measure(() => `${aws} s3 rm --quiet --recursive s3://bench`, { env, stdio: ['ignore', 'ignore', 'pipe'] })
      const ours = (more) => async () => {
        const done = await measure((wrap) => `cat '${file}' | ${wrap(`'${manifold}' --from - --to s3://bench/ours endpoint=${server.endpoint} path-style ${more} --state '${state()}'`)}`, { env, stdio: ['ignore', 'ignore', 'pipe'] })
        await clean()
        return done
      }
      const peer = (filter) => async () => {
        const done = await measure(() => `cat '${file}' ${filter} | ${aws} s3 cp --quiet --expected-size ${bytes} - s3://bench/peer`, { env, stdio: ['ignore', 'ignore', 'pipe'] })
        await clean()
        return done
      }
      if (wants('s3')) results.push(await compare(`stdin to S3 until uploaded (${kind})`, pairs, peer(''), ours(''), 1))
      if (wants('s3') && process.argv.includes('--ten')) {
        const ten = data(bytes * 10)
        const done = await measure((wrap) => `cat '${ten.file}' | ${wrap(`'${manifold}' --from - --to s3://bench/ours endpoint=${server.endpoint} path-style --state '${state()}'`)}`, { env, stdio: ['ignore', 'ignore', 'pipe'] })
        memory.push([`stdin to S3 (${kind}), ten times the bytes`, done.mib])
        await clean()
      }
      if (wants('gzip')) results.push(await compare(`the same with gzip level 6 (${kind})`, pairs, peer('| gzip -6'), ours('compression=gzip compression-level=6'), 1.5))
    } finally { await server.stop() }
  }

  if (wants('ws')) {
    const count = 2_000_000
    const server = spawn(process.execPath, [path.join(__dirname, 'bench/ws-server.js'), String(count), '200'], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      const port = await new Promise((resolve) => { server.stdout.once('data', (text) => { resolve(String(text).trim()) }) })
      const url = `ws://127.0.0.1:${port}/`
      results.push(await compare('ws to discard', pairs, () => measure(() => `'${process.execPath}' '${path.join(__dirname, 'bench/ws-client.js')}' ${url} ${count}`),
        () => measure((wrap) => wrap(`'${manifold}' --from ${url} --to discard: --count ${count}`)), 0.9))
    } finally { server.kill() }
  }

  if (process.argv.includes('--ten')) {
    const ten = data(bytes * 10)
    memory.push(['stdin to stdout, ten times the bytes', (await stdio(ten.file)).mib])
    memory.push(['accept into the spool, ten times the bytes', (await accept(manifold, ten.file, ten.lines, state())).mib])
  }
  fs.rmSync(folder, { recursive: true, force: true })
  process.stdout.write(`\n${os.cpus().length} cores, ${os.cpus()[0].model}, Node ${process.version}, ${bytes} bytes in lines of 220, medians of ${pairs} pairs; ratio = peer's time / ours\n\n`)
  process.stdout.write('| what | ratio | goal | peer s | manifold s | CPU s | memory MiB |\n|---|---|---|---|---|---|---|\n')
  for (const { name, ratio, goal, peer, ours, cpu, mib } of results) process.stdout.write(`| ${name} | ${ratio.toFixed(2)} | ${goal} | ${peer.toFixed(2)} | ${ours.toFixed(2)} | ${cpu?.toFixed(2) ?? '?'} | ${mib.toFixed(0)} |\n`)
  for (const [name, mib] of memory) process.stdout.write(`| ${name} | | | | | | ${mib?.toFixed(0) ?? '?'} |\n`)
})

/** Until all of the input is durable in the spool, with a store that is not there; then stopped. */
async function accept(manifold, file, lines, state) {
  const { timed, usage } = require('./bench/measure')
  const usageFile = path.join(state, 'usage')
  const socket = path.join(state, 'metrics.sock')
  const from = process.hrtime.bigint()
  const env = Object.assign({}, process.env, { AWS_ACCESS_KEY_ID: 'none', AWS_SECRET_ACCESS_KEY: 'none' })
  const line = `'${manifold}' --from - --to s3://none/none region=us-east-1 endpoint=http://127.0.0.1:9 --state '${state}' --metrics 'unix:${socket}'`
  const child = spawn('bash', ['-c', `cat '${file}' | ${timed(line, usageFile)}`], { stdio: ['ignore', 'ignore', 'pipe'], env, detached: true })
  const over = new Promise((resolve) => { child.once('close', resolve) })
  let seconds
  for (;;) {
    const status = await ask(socket)
    if (status?.sinks[0].pending === lines) { seconds = Number(process.hrtime.bigint() - from) / 1e9; break }
    if (child.exitCode !== null) throw new Error(`manifold ended with ${child.exitCode}`)
    await new Promise((resolve) => { setTimeout(resolve, 10) })
  }
  // Not SIGTERM: time(1) would end of it, and its figures with it.
  process.kill(-child.pid, 'SIGINT')
  await over
  const used = usage(usageFile)
  fs.rmSync(state, { recursive: true, force: true })
  return Object.assign({ seconds }, used)
}

function ask(socketPath) {
  return new Promise((resolve) => {
    const request = http.get({ socketPath, path: '/status' }, (response) => {
      let text = ''
      response.on('data', (part) => { text += part })
      response.on('end', () => { try { resolve(JSON.parse(text)) } catch { resolve(undefined) } })
    })
    request.on('error', () => { resolve(undefined) })
  })
}
